"""What is measured: the cells of a bench, and what a measuring process is told of one and answers, as JSON."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from mbexport.errors import InputError
from mbexport.profile import ColdStart, Replicate, Scenario
from mbexport.quantities import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.profile import ThreadPlan


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One row to be: an artifact on a target with its settings."""

    artifact: str
    """The artifact's folder."""
    sha256: str
    """Of its model.onnx."""
    target: str
    mode: Mode
    threads: int
    batch: int
    scenario: Scenario = "single-stream"
    concurrency: int = 1
    """Callers at once. Of ``offline`` the engine says how many it serves best."""
    model: str | None = None
    """A model file of the artifact other than the one that its manifest names for the target."""
    options: tuple[tuple[str, str], ...] = ()
    """The engine's own options beyond the usual ones, by name."""

    @property
    def key(self) -> str:
        """The same wherever the artifact's folder lies, so that what was measured of it can be found again."""
        named = msgspec.structs.replace(self, artifact="")
        return hashlib.sha256(msgspec.json.encode(named)).hexdigest()[:16]


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process. It measures until it has enough samples and seconds, but no longer than ``max_time_s``."""

    cell: Cell
    min_samples: int
    min_time_s: float
    max_time_s: float
    spawned_ns: int = 0
    """The monotonic clock at the process's start."""


class WorkerAnswer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The samples, and what the engine says that it did."""

    replicate: Replicate
    precision: str
    placement: dict[str, int]
    engine_options: dict[str, str]
    versions: dict[str, str]
    inputs_sha256: str
    concurrency: int = 1
    input_size: tuple[int, int] | None = None
    """See :class:`mbexport.profile.Measurement`."""


class ColdPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process that stops after its first answer, its engine keeping what it makes of the model in ``kept``."""

    cell: Cell
    kept: str
    spawned_ns: int = 0


class ColdAnswer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How long that took."""

    start: ColdStart


def interleave(cells: Sequence[Cell], replicates: int) -> Iterator[tuple[int, Cell]]:
    """(row, cell) in the order A B A B: what drifts in the machine then drifts through all rows alike."""
    for _ in range(replicates):
        yield from enumerate(cells)


def choose_threads(wanted: int | None, plan: ThreadPlan) -> int:
    """The wanted number, or the default.

    Raises:
        InputError: fewer than one, or more than this process may use.
    """
    if wanted is None:
        return plan.threads
    if not 1 <= wanted <= plan.most:
        why = " and ".join(plan.reasons)
        allowed = "1" if plan.most == 1 else f"1 to {plan.most}"
        there = "there is" if why.startswith("1 ") else "there are"
        raise InputError(f"threads must be {allowed} here, not {wanted}: {there} {why}")
    return wanted


def choose_batch(wanted: int | None, exported: int | None) -> int:
    """The wanted number of pictures per call, or the artifact's own, or 1. ``exported`` None is a dynamic batch.

    Raises:
        InputError: fewer than one, or other than a static batch.
    """
    if wanted is not None and wanted < 1:
        raise InputError(f"batch must be at least 1, not {wanted}")
    if wanted is not None and exported is not None and wanted != exported:
        raise InputError(
            f"the artifact was built for batch {exported}, not {wanted}; drop --batch, or build it with --batch dynamic"
        )
    return wanted or exported or 1
