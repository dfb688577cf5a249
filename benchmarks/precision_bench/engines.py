"""What computes in a narrow precision: engines that are here, and doubles for those that are not."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from mbexport.accuracy.precisions import Rounding
from mbexport.accuracy.rounding import rounded, rounded_by
from mbexport.artifact import read_reference
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.runtimes.ort_calls import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact

    Arrays = Mapping[str, NDArray[Any]]

TF32_DROPPED_BITS = 13
DOMAIN = "mbexport.doubles"


def openvino_bf16(artifact: Artifact, model: Path, threads: int, batch: int) -> dict[str, NDArray[Any]]:
    """OpenVINO's own defaults on a CPU with bf16, on the artifact's reference pictures."""
    inputs = read_reference(artifact).inputs
    pictures = next(iter(inputs.values()))
    size = artifact.manifest.input.size_of(pictures)
    options = SessionOptions(mode="production", threads=threads, batch=batch, size=size)
    with load_engine("openvino").open(model, "cpu", options) as session:
        if session.facts().precision != "bf16":
            raise SystemExit(f"OpenVINO computes in {session.facts().precision} here; a CPU with bf16 is needed")
        starts = range(0, len(pictures), batch)
        parts = [session.run({name: array[at : at + batch] for name, array in inputs.items()}) for at in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ort_f16(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """ONNX Runtime on the CPU with every tensor of the file f16 but the input and the softmax."""
    return plain_ort(in_half(model), inputs)


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model as an f16 file. Softmax stays float32: f16 ends at 6e-8."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    nodes = list(graph.node)
    del graph.node[:], graph.value_info[:]
    names = {value.name for value in graph.input}
    for name in names:
        graph.node.append(helper.make_node("Cast", [name], [f"{name}/half"], to=TensorProto.FLOAT16))
    outputs = {value.name for value in graph.output}
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = f"{name}/half" if name in names else name
        if node.op_type == "Softmax":
            graph.node.append(helper.make_node("Cast", [node.input[0]], [f"{node.name}/wide"], to=TensorProto.FLOAT))
            node.input[0] = f"{node.name}/wide"
        elif node.output[0] in outputs:
            name, node.output[0] = node.output[0], f"{node.output[0]}/half"
            graph.node.extend([node, helper.make_node("Cast", [node.output[0]], [name], to=TensorProto.FLOAT)])
            continue
        graph.node.append(node)
    return half


def _truncated(values: NDArray[np.float32]) -> NDArray[np.float32]:
    mask = np.uint32(0xFFFFFFFF << TF32_DROPPED_BITS & 0xFFFFFFFF)
    return (np.ascontiguousarray(values).view(np.uint32) & mask).view(np.float32)


class Truncate(OpRun):
    """Cuts to TF32."""

    op_domain = DOMAIN

    def _run(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32]]:
        return (_truncated(values),)


def truncating_tf32(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """NumPy, with factors cut to TF32 instead of rounded, as tensor cores do with float32 that nobody rounded."""

    def nodes(name: str, result: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Truncate", [name], [result], domain=DOMAIN)]

    cut = rounded_by(model, Rounding(lambda values, _: _truncated(values), nodes, stores=False))
    cut.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return _evaluated(cut, inputs, Truncate)


class Conv(OpRun):
    """A convolution whose running sum is f16, one product after the other: the worst order that there is."""

    def _run(self, x: Any, w: Any, bias: Any = None, **attributes: Any) -> tuple[NDArray[np.float32]]:
        group, pads, strides = attributes["group"], attributes["pads"] or [0] * 4, attributes["strides"] or [1, 1]
        padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: strides[0], :: strides[1]]
        each = w.shape[0] // group
        total = np.zeros((x.shape[0], w.shape[0], *windows.shape[2:4]), np.float32)
        for channel, row, column in np.ndindex(w.shape[1:]):
            seen = windows[:, channel :: w.shape[1], :, :, row, column].repeat(each, axis=1)
            total = _f16(total + seen * w[None, :, channel, row, column, None, None])
        return (total if bias is None else _f16(total + bias[None, :, None, None]),)


def summing_f16(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """NumPy in f16 whose convolutions sum in f16 too."""
    return _evaluated(rounded(model, "f16"), inputs, Conv)


def _f16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


def _evaluated(model: onnx.ModelProto, inputs: Arrays, *operators: type[OpRun]) -> dict[str, NDArray[Any]]:
    names = [output.name for output in model.graph.output]
    answers = ReferenceEvaluator(model, new_ops=list(operators)).run(names, dict(inputs))
    return dict(zip(names, answers, strict=True))


def ort_int8(model: Path, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """ONNX Runtime's static quantisation (QDQ, per channel, min-max) calibrated on the very pictures that it answers.

    Products alone: softmax in 8 bits makes most probabilities 0, and logits of none of them.
    """
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[dict[str, Any]] = iter([dict(inputs)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(model, out, Pictures(), per_channel=True, op_types_to_quantize=["Conv", "Gemm", "MatMul"])
        return plain_ort(onnx.load(out), inputs)


def plain_ort(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """ONNX Runtime on the CPU as it is."""
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
