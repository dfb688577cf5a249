"""Who builds and measures a sweep's cells: this machine's processes, or a cluster's workers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mbexport import hardware
from mbexport.runtimes import resolve_targets, split_target
from mbexport.sweep.measured import measured
from mbexport.sweep.pool import outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.bench.rows import BenchRow
    from mbexport.bench.settings import Settings as BenchSettings
    from mbexport.sweep.orders import Order
    from mbexport.sweep.pool import Outcome
    from mbexport.sweep.run import Settings


class Crew(Protocol):
    """What a sweep asks of them."""

    def outcomes(self, orders: Sequence[Order], workers: int) -> Iterator[Outcome]:
        """Build and check each, at most so many side by side; outcomes as they come."""

    def rows(
        self, artifact: Artifact, settings: Settings, bench: BenchSettings, progress: Callable[[str, float], None]
    ) -> dict[str, list[BenchRow]]:
        """Every row by its machine's slug. What no profile holds is measured first, and written there.

        Raises :class:`MbexportError`.
        """


@contextmanager
def crew_at(scheduler: str | None, machines: Sequence[str] | None = None) -> Iterator[Crew | None]:
    """The workers of a Dask scheduler; None, which is this machine, without one.

    Raises:
        MissingError: distributed is not installed, or no scheduler answers.
    """
    if scheduler is None:
        yield None
        return
    from mbexport.sweep.cluster import cluster

    with cluster(scheduler, machines) as crew:
        yield crew


def targets_for(runtimes: Sequence[str] | None, scheduler: str | None) -> list[str]:
    """What is asked for; a cluster's workers may have what is not here.

    Raises:
        InputError: an unknown engine.
        MissingError: a runtime is not here, and nobody else would run it.
    """
    if scheduler is None or not runtimes:
        return resolve_targets(list(runtimes) if runtimes else None)
    return list(dict.fromkeys(":".join(split_target(target)) for target in runtimes))


@dataclass(frozen=True)
class LocalCrew:
    """Processes of this machine."""

    locks: Path
    """Folder of the lock that keeps others from measuring meanwhile."""

    def outcomes(self, orders: Sequence[Order], workers: int) -> Iterator[Outcome]:
        return outcomes(orders, workers)

    def rows(
        self, artifact: Artifact, settings: Settings, bench: BenchSettings, progress: Callable[[str, float], None]
    ) -> dict[str, list[BenchRow]]:
        return {
            hardware.detect().slug: measured(artifact, settings.targets, bench, settings.profiles, self.locks, progress)
        }
