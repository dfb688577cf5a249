"""ONNX Runtime's own profiler: a Chrome trace with an event for each node of each run.

Fields as onnxruntime 1.31 writes them: category ``Node``, name ``<node>_kernel_time``, ``dur`` and ``ts`` in whole
microseconds, and among the arguments ``op_name``, ``provider``, ``node_index`` and ``output_type_shape``. Each run is
an event ``model_run`` of category ``Session`` around its nodes. The profiler keeps at most a million events.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport.errors import EngineError
from mbexport.runtimes.ort import _open_session
from mbexport.runtimes.ort_calls import engine_errors, import_onnxruntime
from mbexport.runtimes.profiled import EngineProfile, ProfiledNode, timed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mbexport.runtimes import SessionOptions
    from mbexport.runtimes.profiled import Feeds, Watch

    Event = Mapping[str, Any]

_WARMUP_RUNS = 10
_KERNEL = "_kernel_time"
_ADDED = re.compile(r"(_nchwc|/MatMulAddFusion|_token_\d+)+$")
"""What the optimizer adds to the name of a node, or of its result, where it makes another node of it."""
_ASYNCHRONOUS = "CUDAExecutionProvider"
_LAUNCHES = (
    f"{_ASYNCHRONOUS} does not wait for its kernels: a node's time is that of launching them, and the GPU's time shows "
    "in the node that waits"
)


def profile(model: Path, device: str, options: SessionOptions, feeds: Sequence[Feeds], watch: Watch) -> EngineProfile:
    """Run ``feeds`` in turn with ONNX Runtime's profiler on; the trace is written to a temporary folder and removed.

    Raises:
        EngineError: the model cannot be run, or the trace does not hold its runs.
        MissingError: onnxruntime or the device is not here.
    """
    ort = import_onnxruntime()
    # Read back from a session that was opened as every other, and closed: its threads would spin beside the next one's.
    plain, _ = _open_session(ort, str(model), device, options)
    settings, provider_options = plain.get_session_options(), plain.get_provider_options()
    providers = [(name, provider_options[name]) for name in plain.get_providers()]
    del plain
    settings.enable_profiling = True
    with (
        tempfile.TemporaryDirectory(prefix="mbexport-") as folder,
        engine_errors(f"ort:{device} cannot profile {model.name}"),
    ):
        settings.profile_file_prefix = str(Path(folder) / "trace")
        session = ort.InferenceSession(str(model), settings, providers=providers, enable_fallback=0)
        calls = itertools.cycle([functools.partial(session.run, None, dict(feed)) for feed in feeds])
        timed(calls, _WARMUP_RUNS)
        run_s = timed(calls, watch.runs, watch.most_s)
        events = json.loads(Path(session.end_profiling()).read_bytes())
    nodes = nodes_of(events, len(run_s))
    launched = any(node.kernel == _ASYNCHRONOUS for node in nodes)
    return EngineProfile(nodes, run_s, _LAUNCHES if launched else None)


def nodes_of(events: Sequence[Event], runs: int) -> list[ProfiledNode]:
    """The nodes of the last ``runs`` runs of a trace, in the order in which they first ran. Those before are warm-up.

    Raises:
        EngineError: the trace holds fewer runs.
    """
    whole = sorted((event["ts"], event["dur"]) for event in events if event["name"] == "model_run")[-runs:]
    if len(whole) < runs:
        raise EngineError(f"ONNX Runtime's trace holds {len(whole)} runs, not the {runs} that were made")
    starts = [start for start, _ in whole]
    found: dict[tuple[str, str], Event] = {}
    times_s: dict[tuple[str, str], list[float]] = {}
    for event in sorted(filter(_is_kernel, events), key=lambda event: event["ts"]):
        run = bisect.bisect_right(starts, event["ts"]) - 1
        if run < 0:
            continue
        key = event["name"], event["args"]["node_index"]
        found.setdefault(key, event)
        times_s.setdefault(key, [0.0] * runs)[run] += event["dur"] * 1e-6
    return [_node(event, times_s[key]) for key, event in found.items()]


def _is_kernel(event: Event) -> bool:
    return bool(event["cat"] == "Node" and event["name"].endswith(_KERNEL))


def _node(event: Event, times_s: list[float]) -> ProfiledNode:
    name, told = event["name"].removesuffix(_KERNEL), event["args"]
    shapes = [shape for typed in told.get("output_type_shape", []) for shape in typed.values()]
    return ProfiledNode(
        name=name,
        origins=[_ADDED.sub("", name).removeprefix("fused ")],
        operator=told["op_name"],
        kernel=told["provider"],
        shape=shapes[0] if shapes else None,
        times_s=times_s,
    )
