"""Microseconds a node, from each runtime's own profiler: the median over runs, one thread, float32."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.runtimes.openvino import import_openvino
from mbexport.runtimes.ort_calls import import_onnxruntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Timed:
    """One node as the runtime runs it. ``names`` are those of the file's nodes that went into it."""

    op: str
    names: frozenset[str]
    time_us: float


def ort_profile(path: Path, feeds: dict[str, NDArray[np.float32]], runs: int) -> list[Timed]:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time").removesuffix("_nchwc").removesuffix("/MatMulAddFusion")
            times[event["args"]["op_name"], name].append(event["dur"])
    return [Timed(op, frozenset([name]), statistics.median(found)) for (op, name), found in times.items()]


def openvino_profile(path: Path, feeds: dict[str, NDArray[np.float32]], runs: int) -> list[Timed]:
    ov = import_openvino()
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERF_COUNT": True}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(runs):
        request.infer(feeds)
        for entry in request.profiling_info:
            times[entry.node_type, entry.node_name].append(entry.real_time.total_seconds() * 1e6)
    origins = {
        node.get_friendly_name(): node.get_rt_info()["originalLayersNames"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
    }
    return [
        Timed(op, frozenset(origins.get(name, name).split(",")), statistics.median(found))
        for (op, name), found in times.items()
        if any(found)
    ]
