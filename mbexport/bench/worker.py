"""The measuring process: ``python -m mbexport.bench.worker``, a plan on stdin, an answer on stdout, both JSON.

It imports NumPy and one engine, and nothing else that is large, so that memory and cold start are the engine's own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil

from mbexport import child, serde
from mbexport.artifact import MANIFEST, Artifact, read_reference
from mbexport.bench import conditions
from mbexport.bench.plan import WorkerAnswer, WorkerPlan
from mbexport.bench.timing import Limits, time_calls, warm_up
from mbexport.errors import InputError
from mbexport.manifest import SCHEMA_VERSION, Manifest
from mbexport.profile import Replicate
from mbexport.runtimes import SessionOptions, load_engine, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.runtimes import Session

    Feeds = Mapping[str, NDArray[Any]]

ROTATION = 4
"""At most so many inputs in turn: enough that no run repeats the one before, few enough to hold large batches."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Cold:
    """The fields of a :class:`Replicate` that are known after the first inference."""

    import_s: float
    load_s: float
    first_inference_s: float
    memory_loaded_bytes: int
    memory_inferred_bytes: int


def measure(plan: WorkerPlan, limits: Limits | None = None) -> WorkerAnswer:
    """Measure one row in this process.

    Raises:
        ArtifactError: the artifact's reference inputs cannot be read.
        InputError: a batch that does not fit into memory.
        MissingError: the engine or the device is not here.
    """
    # The parent has just checked every digest; hashing again would only delay the first inference.
    path = Path(plan.artifact)
    artifact = Artifact(path, serde.read_document(path / MANIFEST, Manifest, SCHEMA_VERSION))
    feeds = rotate(read_reference(artifact).inputs, plan.batch)
    contract = artifact.manifest.input
    size = contract.size_of(next(iter(feeds[0].values())))
    engine, device = split_target(plan.target)
    runtime = load_engine(engine)
    _, import_s = _timed(runtime.import_package)
    bare_bytes = conditions.resident_bytes()
    options = SessionOptions(mode=plan.mode, threads=plan.threads, batch=plan.batch, size=size)
    opened, load_s = _timed(lambda: runtime.open(artifact.model_path(plan.target), device, options))
    loaded_bytes = conditions.resident_bytes()
    with opened as session:
        first, bind_s = _timed(lambda: session.bind(feeds[0]))
        _, run_s = _timed(first)
        cold = _Cold(
            import_s=import_s,
            load_s=load_s,
            first_inference_s=bind_s + run_s,
            memory_loaded_bytes=max(0, loaded_bytes - bare_bytes),
            memory_inferred_bytes=max(0, conditions.resident_bytes() - bare_bytes),
        )
        replicate = _warm_replicate(session, feeds, limits or Limits(plan.min_samples), cold)
        facts = session.facts()  # last: reading the graph back takes time and memory
    return WorkerAnswer(
        replicate=replicate,
        precision=facts.precision,
        placement=dict(facts.placement),
        engine_options=dict(facts.options),
        versions={**_versions(), **facts.versions},
        inputs_sha256=_digest(feeds),
        input_size=size if contract.is_dynamic else None,
    )


def rotate(inputs: Feeds, batch: int) -> list[Feeds]:
    """Up to ``ROTATION`` feeds of ``batch`` pictures each; feed i starts with reference picture i and goes round.

    Raises:
        InputError: they would take more than half of the memory that is free.
    """
    pictures = min(len(array) for array in inputs.values())
    count = min(pictures, ROTATION)
    needed = count * batch * sum(array[0].nbytes for array in inputs.values())
    available = psutil.virtual_memory().available
    if needed > available / 2:
        raise InputError(
            f"batch {batch} needs {needed / 1e9:.1f} GB for its inputs alone, and {available / 1e9:.1f} GB are free; "
            "choose a smaller --batch"
        )
    chosen = [(np.arange(batch) + start) % pictures for start in range(count)]
    return [{name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()} for rows in chosen]


def _warm_replicate(session: Session, feeds: Sequence[Feeds], limits: Limits, cold: _Cold) -> Replicate:
    calls = itertools.cycle([session.bind(feed) for feed in feeds])
    batch = len(next(iter(feeds[0].values())))
    warmup_runs, settled = warm_up(calls)
    before, start = conditions.read_conditions(), conditions.read_cpu_times()
    samples_ns, wall_ns = time_calls(calls, limits)
    end = conditions.read_cpu_times()
    return Replicate(
        samples_ns=samples_ns,
        warmup_runs=warmup_runs,
        warmup_settled=settled,
        throughput_per_s=len(samples_ns) * batch / (wall_ns * 1e-9),
        memory_peak_bytes=conditions.peak_resident_bytes(),
        before=before,
        after=conditions.read_conditions(start, end),
        **asdict(cold),
    )


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter_ns()
    result = call()
    return result, (time.perf_counter_ns() - start) * 1e-9


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
