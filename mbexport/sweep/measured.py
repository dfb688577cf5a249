"""Rows of an artifact on this machine: those that its profile holds, and those that have to be measured first."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mbexport import hardware, serde
from mbexport.bench.rows import BenchRow, row_of
from mbexport.bench.run import prepare
from mbexport.bench.settings import cells_of
from mbexport.errors import EngineError
from mbexport.profiles import profile_path, read_profile, same_machine
from mbexport.runtimes import engine_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.bench.plan import Cell
    from mbexport.bench.settings import Settings
    from mbexport.profile import Measurement


def measured(
    artifact: Artifact,
    targets: Sequence[str],
    settings: Settings,
    profiles: Path,
    locks: Path,
    progress: Callable[[str, float], None] | None = None,
) -> list[BenchRow]:
    """Every row that is asked for, those of another build or engine version measured anew.

    Whoever measures on this machine with the same folder of ``locks`` waits for the others.

    Raises:
        EngineError: a row could not be measured.
        MbexportError: whatever else ``bench`` raises.
    """
    cells = cells_of([artifact], targets, settings, hardware.usable_threads())
    missing = unmeasured(artifact, targets, settings, profiles)
    if missing:
        prepared = prepare([artifact], targets, settings, profiles=profiles, cells=missing)
        with _alone(locks):
            report = prepared.run(progress)
        prepared.forget()
        if report.failed:
            raise EngineError(f"{report.failed[0].runtime} {report.failed[0].mode}: {report.failed[0].reason}")
    rows = [_stored(artifact, cell, profiles) for cell in cells]
    return [row_of(artifact.manifest.slug, row) for row in rows if row is not None]


def unmeasured(artifact: Artifact, targets: Sequence[str], settings: Settings, profiles: Path) -> list[Cell]:
    """The rows that are asked for and that no profile of this machine has."""
    cells = cells_of([artifact], targets, settings, hardware.usable_threads())
    return [cell for cell in cells if _stored(artifact, cell, profiles) is None]


@contextmanager
def _alone(locks: Path) -> Iterator[None]:
    """The lock carries the machine's name, for several may share the folder."""
    import filelock

    with serde.writing(locks):
        locks.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(locks / f"measuring-{platform.node()}.lock"):
        yield


def _stored(artifact: Artifact, cell: Cell, profiles: Path) -> Measurement | None:
    path = profile_path(profiles, hardware.detect(), artifact.manifest.slug)
    if not path.is_file():
        return None
    profile = read_profile(path)
    if profile.artifact_sha256 != artifact.sha256 or not same_machine(profile.hardware, hardware.detect()):
        return None
    return next((row for row in profile.measurements if _is_of(row, cell) and _is_current(row)), None)


def _is_of(row: Measurement, cell: Cell) -> bool:
    wanted = (cell.target, cell.mode, cell.threads, cell.batch, cell.scenario)
    return (row.runtime, row.mode, row.threads, row.batch, row.scenario) == wanted and not row.unusual


def _is_current(row: Measurement) -> bool:
    """Whether the engine that is installed is the one that was measured."""
    here = engine_versions([row.runtime]).values()
    return any(found.startswith(version) for version in here for found in row.versions.values())
