"""What a measuring process is told and what it answers, as JSON; and in which order the processes run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.errors import InputError
from mbexport.profile import Mode, Replicate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.profile import ThreadPlan


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process: an artifact folder on a target, with at least ``min_samples`` timed runs."""

    artifact: str
    target: str
    mode: Mode
    threads: int
    batch: int
    min_samples: int


class WorkerAnswer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The samples, and what the engine says that it did."""

    replicate: Replicate
    precision: str
    placement: dict[str, int]
    engine_options: dict[str, str]
    versions: dict[str, str]
    inputs_sha256: str
    input_size: tuple[int, int] | None = None
    """See :class:`mbexport.profile.Measurement`."""


def interleave(plans: Sequence[WorkerPlan], replicates: int) -> Iterator[tuple[int, WorkerPlan]]:
    """(row, plan) in the order A B A B: what drifts in the machine then drifts through all rows alike."""
    for _ in range(replicates):
        yield from enumerate(plans)


def choose_threads(wanted: int | None, plan: ThreadPlan) -> int:
    """The wanted number, or the default.

    Raises:
        InputError: fewer than one, or more than this process may use.
    """
    if wanted is None:
        return plan.threads
    if not 1 <= wanted <= plan.most:
        why = " and ".join(plan.reasons)
        raise InputError(f"threads must be 1 to {plan.most} here, not {wanted}: there are {why}")
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
