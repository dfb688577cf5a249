"""How long ONNX Runtime computes an 8-bit depthwise product of so many channels: why networks are widened."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mbexport.bench.statistics import median
from mbexport.bench.timing import Limits, time_calls
from precision_bench.records import Channels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from precision_bench.records import Found

COUNTS = (24, 32, 64, 72, 80, 88, 96, 120, 128, 184, 192, 200, 208)
_KERNELS = (3, 5)
_SIDE_PX = 28
_SHORT, _LONG = 2, 10
"""Products in a row; the difference leaves out what a call costs besides."""
_BLOCK = Limits(50, 0.02, 0.2)


def measure(found: Found, rounds: int) -> Iterator[None]:
    """Two files of each kind take turns; the median of rounds."""
    done = {(one.kernel, one.channels) for one in found.channels}
    for kernel, channels in itertools.product(_KERNELS, COUNTS):
        if (kernel, channels) not in done:
            found.channels.append(
                Channels(kernel=kernel, channels=channels, seconds=_seconds(kernel, channels, rounds))
            )
            yield


def _seconds(kernel: int, channels: int, rounds: int) -> float:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        ort.InferenceSession(chain(kernel, channels, length).SerializeToString(), options, ["CPUExecutionProvider"])
        for length in (_SHORT, _LONG)
    ]
    x = np.random.default_rng(0).normal(size=(1, channels, _SIDE_PX, _SIDE_PX)).astype(np.float32)
    calls = [partial(session.run, None, {"x": x}) for session in sessions]
    each = []
    for _ in range(rounds):
        short_ns, long_ns = (median(time_calls(itertools.repeat(call), _BLOCK)[0]) for call in calls)
        each.append((long_ns - short_ns) * 1e-9 / (_LONG - _SHORT))
    return median(each)


def chain(kernel: int, channels: int, length: int) -> onnx.ModelProto:
    """8-bit depthwise products in a row."""
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {"scale": np.float32(0.02), "point": np.uint8(128)}
    constants |= {"units": np.full(channels, 0.01, np.float32), "zeros": np.zeros(channels, np.int8)}
    nodes: list[onnx.NodeProto] = []

    def add(op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def rounded(tensor: str) -> str:
        quantized = add("QuantizeLinear", [tensor, "scale", "point"], f"{tensor}/q")
        return add("DequantizeLinear", [quantized, "scale", "point"], f"{tensor}/dq")

    last = rounded("x")
    for at in range(length):
        constants[f"w{at}"] = rng.integers(-127, 128, (channels, 1, kernel, kernel), np.int8)
        weights = add("DequantizeLinear", [f"w{at}", "units", "zeros"], f"w{at}/dq", axis=0)
        pads = [kernel // 2] * 4
        last = rounded(add("Conv", [last, weights], f"y{at}", group=channels, pads=pads))
    shape = [1, channels, _SIDE_PX, _SIDE_PX]
    given, taken = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last))
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "chain", [given], [taken], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
