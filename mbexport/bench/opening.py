"""From a process's start to its first answer, each part timed: what every measuring process does first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil

from mbexport import serde
from mbexport.artifact import MANIFEST, Artifact, read_reference
from mbexport.bench import conditions
from mbexport.errors import InputError
from mbexport.manifest import SCHEMA_VERSION, Manifest
from mbexport.profile import ColdStart
from mbexport.runtimes import SessionOptions, load_engine, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from mbexport.bench.plan import Cell
    from mbexport.runtimes import Session

    Feeds = Mapping[str, NDArray[Any]]

ROTATION = 4
"""At most so many inputs in turn: enough that no run repeats the one before, few enough to hold large batches."""

T = TypeVar("T")


@dataclass(frozen=True)
class Opened:
    """A session that has answered once. Close it."""

    session: Session
    feeds: list[Feeds]
    input_size: tuple[int, int] | None
    """See :class:`mbexport.profile.Measurement`."""
    start: ColdStart
    loaded_bytes: int
    """What loading the model added to the process's resident memory."""
    inferred_bytes: int
    """The same after the first inference."""


def open_cell(cell: Cell, spawned_ns: int, kept: Path | None = None) -> Opened:
    """Open a cell's artifact in this process, which was started at ``spawned_ns``, and let it answer once.

    Args:
        cell: what to open, and how.
        spawned_ns: the monotonic clock at this process's start.
        kept: a folder in which the engine finds, or leaves, what it made of the model.

    Raises:
        ArtifactError: the artifact's reference inputs cannot be read.
        InputError: a batch that does not fit into memory.
        MissingError: the engine or the device is not here.
    """
    # The parent has just checked every digest; hashing again would only delay the first inference.
    path = Path(cell.artifact)
    artifact = Artifact(path, serde.read_document(path / MANIFEST, Manifest, SCHEMA_VERSION))
    feeds = rotate(read_reference(artifact).inputs, cell.batch)
    contract = artifact.manifest.input
    size = contract.size_of(next(iter(feeds[0].values())))
    engine, device = split_target(cell.target)
    runtime = load_engine(engine)
    start_s = (time.monotonic_ns() - spawned_ns) * 1e-9
    _, import_s = _timed(runtime.import_package)
    bare_bytes = conditions.resident_bytes()
    options = _options(cell, size, kept)
    model = artifact.path / cell.model if cell.model else artifact.model_path(cell.target)
    session, load_s = _timed(lambda: runtime.open(model, device, options))
    loaded_bytes = conditions.resident_bytes()
    first, bind_s = _timed(lambda: session.bind(feeds[0]))
    _, run_s = _timed(first)
    return Opened(
        session=session,
        feeds=feeds,
        input_size=size if contract.is_dynamic else None,
        start=ColdStart(start_s=start_s, import_s=import_s, load_s=load_s, first_inference_s=bind_s + run_s),
        loaded_bytes=max(0, loaded_bytes - bare_bytes),
        inferred_bytes=max(0, conditions.resident_bytes() - bare_bytes),
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


def _options(cell: Cell, size: tuple[int, int] | None, kept: Path | None) -> SessionOptions:
    """Callers share the threads. ``offline`` has no number of callers: the engine divides the threads itself."""
    return SessionOptions(
        mode=cell.mode,
        threads=cell.threads,
        batch=cell.batch,
        size=size,
        callers=None if cell.scenario == "offline" else cell.concurrency,
        kept=kept,
        engine_options=dict(cell.options),
    )


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter_ns()
    result = call()
    return result, (time.perf_counter_ns() - start) * 1e-9
