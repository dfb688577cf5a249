"""The measuring process: ``python -m mbexport.bench.worker``, a plan on stdin, an answer on stdout, both JSON.

It imports NumPy and one engine, and nothing else that is large, so that memory and cold start are the engine's own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import platform
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from mbexport import child
from mbexport.bench import conditions
from mbexport.bench.opening import open_cell
from mbexport.bench.plan import WorkerAnswer, WorkerPlan
from mbexport.bench.timing import Limits, time_callers, time_calls, warm_up_callers
from mbexport.profile import Replicate
from mbexport.runtimes import split_target
from mbexport.samples import packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.bench.opening import Feeds, Opened


def measure(plan: WorkerPlan) -> WorkerAnswer:
    """Measure one cell in this process. Raises as :func:`mbexport.bench.opening.open_cell` does."""
    cell = plan.cell
    opened = open_cell(cell, plan.spawned_ns)
    limits = Limits(plan.min_samples, plan.min_time_s, plan.max_time_s)
    with opened.session as session:
        callers = session.callers if cell.scenario == "offline" else cell.concurrency
        replicate = _warm_replicate(opened, callers, cell.batch, limits, split_target(cell.target)[1])
        facts = session.facts()  # last: reading the graph back takes time and memory
    return WorkerAnswer(
        replicate=replicate,
        precision=facts.precision,
        placement=dict(facts.placement),
        engine_options=dict(facts.options),
        versions={**_versions(), **facts.versions},
        inputs_sha256=_digest(opened.feeds),
        concurrency=callers,
        input_size=opened.input_size,
    )


def _warm_replicate(opened: Opened, callers: int, batch: int, limits: Limits, device: str) -> Replicate:
    session = opened.session
    turns = [itertools.cycle([session.bind(feed) for feed in opened.feeds]) for _ in range(callers)]
    warmup_runs, settled = warm_up_callers(turns)
    before, start = conditions.read_conditions(device=device), conditions.read_cpu_times()
    inner = [call for call in (session.bind_inner(feed) for feed in opened.feeds) if call is not None and callers == 1]
    if inner:  # two loops in the time of one
        limits = replace(limits, min_time_s=limits.min_time_s / 2, max_time_s=limits.max_time_s / 2)
    samples_ns, wall_ns = time_callers(turns, limits)
    end = conditions.read_cpu_times()
    after = conditions.read_conditions(start, end, device=device)
    device_ns = time_calls(itertools.cycle(inner), limits)[0] if inner else None
    return Replicate(
        samples=packed(samples_ns),
        device_samples=None if device_ns is None else packed(device_ns),
        warmup_runs=warmup_runs,
        warmup_settled=settled,
        throughput_per_s=len(samples_ns) * batch / (wall_ns * 1e-9),
        memory_loaded_bytes=opened.loaded_bytes,
        memory_inferred_bytes=opened.inferred_bytes,
        memory_peak_bytes=conditions.peak_resident_bytes(),
        before=before,
        after=after,
        **msgspec.structs.asdict(opened.start),
    )


def _digest(feeds: Sequence[Feeds]) -> str:
    digest = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("mbexport", "numpy")}
    return {"python": platform.python_version(), **packages}


def main() -> int:
    """Answer one plan; the exit code."""
    return child.answer(WorkerPlan, measure)


if __name__ == "__main__":
    sys.exit(main())
