"""What a machine reaches at best: an engine's own product and its own pass over memory, timed by its own profiler.

The clock, the threads and the precision are those of the operators that are compared with them: a share of 1 means as
fast as this engine can be here, not as a data sheet promises.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import psutil
from onnx import helper, numpy_helper

from mbexport.operators.attribution import attribute
from mbexport.operators.table import MachineRates
from mbexport.operators.work import read_work
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.runtimes.profiled import Watch, load_profiler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.quantities import Mode
    from mbexport.runtimes.profiled import Feeds

_WATCH = Watch(runs=20, most_s=0.3)
_CHANNELS, _SIDE_PX, _LAYERS = 256, 28, 3
"""Of the product: a map of 0.8 MB and a kernel of 0.26 MB stay in a core's caches, and 51 M multiply-accumulates take
long against the profilers' microseconds. Three in a row, as engines may reorder the first one's input."""
_LEAST_STREAM_BYTES = 64 * 2**20


def measure_rates(engine: str, device: str, mode: Mode, threads: int, precision: str) -> MachineRates:
    """Measure both on one engine's device, in about a second.

    Args:
        engine: such as ``ort``.
        device: such as ``cpu``.
        mode: of the product. The pass over memory is always float32.
        threads: for both.
        precision: the network's effective one.

    Raises:
        EngineError: the engine cannot run them.
        MissingError: the engine or the device is not here.
    """
    stream_bytes = stream_size_bytes()
    options = SessionOptions(mode=mode, threads=threads)
    return MachineRates(
        macs_per_s=_product_rate(engine, device, options, precision),
        bytes_per_s=_stream_rate(engine, device, replace(options, mode="parity"), stream_bytes),
        stream_bytes=stream_bytes,
    )


def _product_rate(engine: str, device: str, options: SessionOptions, precision: str) -> float | None:
    shape = [1, _CHANNELS, _SIDE_PX, _SIDE_PX]
    feeds = {"t0": np.random.default_rng(0).random(shape, dtype=np.float32)}
    with _file(_products(shape)) as path:
        with load_engine(engine).open(path, device, options) as session:
            if session.facts().precision != precision:
                return None
        return math.prod(shape) * _CHANNELS / _best_s(engine, path, device, options, feeds)


def _stream_rate(engine: str, device: str, options: SessionOptions, stream_bytes: int) -> float | None:
    if 4 * stream_bytes > psutil.virtual_memory().available:
        return None
    feeds = {"t0": np.ones([1, stream_bytes // 4], np.float32)}
    with _file(_relu(feeds["t0"].shape)) as path:
        return 2 * stream_bytes / _best_s(engine, path, device, options, feeds)


def _best_s(engine: str, model: Path, device: str, options: SessionOptions, feeds: Feeds) -> float:
    """The least time of any node that the model has; what the engine adds of its own does not count."""
    nodes = load_profiler(engine)(model, device, options, [feeds], _WATCH).nodes
    groups = attribute(read_work(model, {name: array.shape for name, array in feeds.items()}), nodes)
    return min(seconds for node, group in zip(nodes, groups, strict=True) if group for seconds in node.times_s)


@contextlib.contextmanager
def _file(model: onnx.ModelProto) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        yield path


def _products(shape: Sequence[int]) -> onnx.ModelProto:
    """Three 1x1 convolutions; random kernels, whose scale keeps the numbers as they are."""
    rng = np.random.default_rng(1)
    kernels = rng.normal(scale=_CHANNELS**-0.5, size=(_LAYERS, _CHANNELS, _CHANNELS, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", [f"t{layer}", f"k{layer}"], [f"t{layer + 1}"], name=f"product {layer}")
        for layer in range(_LAYERS)
    ]
    constants = [numpy_helper.from_array(kernel, f"k{layer}") for layer, kernel in enumerate(kernels)]
    return _model(nodes, shape, f"t{_LAYERS}", constants)


def _relu(shape: Sequence[int]) -> onnx.ModelProto:
    return _model([helper.make_node("Relu", ["t0"], ["t1"], name="stream")], shape, "t1", [])


def _model(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int], result: str, constants: Sequence[onnx.TensorProto]
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("t0", result)]
    graph = helper.make_graph(nodes, "rate", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def stream_size_bytes(caches: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Twice the largest cache of a core, as Linux tells it; at least 64 MiB, which also stands where it is not told."""
    sizes = [_kib(file.read_text()) for file in caches.glob("index*/size")]
    return max(_LEAST_STREAM_BYTES, 2 * 1024 * max(sizes, default=0))


def _kib(text: str) -> int:
    """``32768K`` -> 32768."""
    return int(text.strip().removesuffix("K"))
