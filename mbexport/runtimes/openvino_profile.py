"""OpenVINO's own profiler: compiled with ``PERF_COUNT``, a request tells its ``profiling_info`` after a run.

Fields as openvino 2026.4 has them: ``node_name``, ``node_type``, ``exec_type`` and ``real_time`` in whole microseconds,
which is the average over all runs since the model was compiled. So a model is compiled several times, and each time
gives one figure: the average over the runs behind the warm-up. What a node was made of stands in the runtime model, as
``originalLayersNames``.
"""

from __future__ import annotations

import functools
import itertools
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from mbexport.runtimes.openvino import _config, _engine_errors, _read, _static, import_openvino
from mbexport.runtimes.profiled import EngineProfile, ProfiledNode, timed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from mbexport.runtimes import SessionOptions
    from mbexport.runtimes.profiled import Feeds, Watch

_WARMUP_RUNS, _BLOCK_RUNS = 5, 10
"""Of each compiled model. Averages a, b are rounded down: ``(15 a - 5 b) / 10`` errs by 1.5 microseconds at most."""
_LEAST_BLOCKS = 3


class _Told(NamedTuple):
    """A node's average over a block of runs."""

    name: str
    operator: str
    kernel: str
    time_s: float


def profile(model: Path, device: str, options: SessionOptions, feeds: Sequence[Feeds], watch: Watch) -> EngineProfile:
    """Run ``feeds`` in turn with OpenVINO's profiler on; at least three blocks of runs, however long they take.

    Raises:
        EngineError: the model cannot be run.
        MissingPackageError: openvino is not installed.
    """
    ov = import_openvino()
    blocks: list[list[_Told]] = []
    run_s: list[float] = []
    start = time.perf_counter()
    with _engine_errors(ov, f"openvino:{device} cannot profile {model.name}"):
        while len(run_s) < watch.runs and (len(blocks) < _LEAST_BLOCKS or time.perf_counter() - start < watch.most_s):
            compiled = _compiled(ov, model, device.upper(), options)
            told, seconds = _block(compiled, feeds)
            blocks.append(told)
            run_s += seconds
        return EngineProfile(_nodes(blocks, compiled.get_runtime_model()), run_s)


def _compiled(ov: ModuleType, model: Path, device: str, options: SessionOptions) -> Any:
    core = ov.Core()
    network = _read(ov, core, model)
    network.reshape({port: _static(port.partial_shape, options) for port in network.inputs})
    return core.compile_model(network, device, {**_config(core, device, options), "PERF_COUNT": True})


def _block(compiled: Any, feeds: Sequence[Feeds]) -> tuple[list[_Told], list[float]]:
    """All nodes in the order in which they run, those that were fused away included; and the runs' seconds."""
    request = compiled.create_infer_request()
    calls = itertools.cycle([functools.partial(request.infer, dict(feed)) for feed in feeds])
    timed(calls, _WARMUP_RUNS)
    before_s = [_total_s(info, _WARMUP_RUNS) for info in request.profiling_info]
    run_s = timed(calls, _BLOCK_RUNS)
    ended = _WARMUP_RUNS + _BLOCK_RUNS
    told = [
        _Told(info.node_name, info.node_type, info.exec_type, max(0.0, _total_s(info, ended) - earlier_s) / _BLOCK_RUNS)
        for info, earlier_s in zip(request.profiling_info, before_s, strict=True)
    ]
    return told, run_s


def _total_s(info: Any, runs: int) -> float:
    return float(runs * info.real_time.total_seconds())


def _nodes(blocks: Sequence[Sequence[_Told]], runtime_model: Any) -> list[ProfiledNode]:
    """Every compilation has the same nodes in the same order. What was fused away is not in the runtime model.

    Of a node that takes less than a microsecond ``status`` says, too, that it was not executed: it does not help here.
    """
    graph = {node.get_friendly_name(): node for node in runtime_model.get_ops()}
    each = zip(*blocks, strict=True)
    return [_node(told, graph[told[0].name]) for told in each if told[0].name in graph]


def _node(told: Sequence[_Told], node: Any) -> ProfiledNode:
    name, operator, kernel, _ = told[0]
    origins = node.get_rt_info()["originalLayersNames"].astype(str)
    return ProfiledNode(
        name=name,
        origins=[origin for origin in origins.split(",") if origin],
        operator=operator,
        kernel=kernel,
        shape=[*node.output(0).shape],
        times_s=[block.time_s for block in told],
    )
