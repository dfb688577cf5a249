"""A grid of cells: built and checked side by side, then measured one after the other, resumable at any moment.

What was done is not done again, for artifacts and validations come from the cache and rows from the profiles. So a
sweep that was stopped goes on where it was when the same is asked for once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import weights as weights_of
from mbexport.accuracy.report import ValidationReport
from mbexport.artifact import read_artifact, refuse_foreign
from mbexport.bench.rows import BenchRow
from mbexport.errors import MbexportError
from mbexport.serde import refuse_unwritable
from mbexport.sweep.cells import Cell, refuse_twins
from mbexport.sweep.crew import LocalCrew
from mbexport.sweep.orders import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.bench.settings import Settings as BenchSettings
    from mbexport.sweep.crew import Crew
    from mbexport.sweep.pool import Outcome


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell. ``error`` is why it failed; what was done until then stands beside it."""

    name: str
    cell: Cell
    artifact: str | None = None
    sha256: str | None = None
    cached: bool = False
    """Whether artifact and validation were made before."""
    build_s: float | None = None
    validate_s: float | None = None
    validation: ValidationReport | None = None
    machine: str | None = None
    """Slug of the machine that validated it, and the versions of its engines."""
    versions: dict[str, str] = {}
    rows: list[BenchRow] = []
    measured_on: list[str] = []
    """Slug of the machine of each row."""
    notes: list[str] = []
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.error is None and self.validation is not None and self.validation.passed


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """Every cell, in the order in which they were asked for."""

    schema_version: int = 1
    passed: bool
    cells: list[CellResult]


@dataclass(frozen=True)
class Settings:
    """What holds for all cells."""

    out: Path
    cache: Path
    targets: Sequence[str]
    workers: int
    threads: int
    """For the workers together."""
    images: Path | None = None
    labels: Path | None = None
    golden: Path | None = None
    bench: BenchSettings | None = None
    """None measures nothing."""
    profiles: Path = Path("profiles")


def sweep(
    cells: Sequence[Cell],
    settings: Settings,
    *,
    observe: Callable[[CellResult], None] = lambda _result: None,
    progress: Callable[[str, float | None], None] = lambda _message, _share: None,
    crew: Crew | None = None,
) -> SweepReport:
    """Build, check and measure every cell; one that fails stops no other.

    Float32 cells are built side by side. Narrower ones come after them, one at a time, for each uses every core;
    measuring comes last.

    Args:
        cells: each with a folder of its own.
        settings: what holds for all of them.
        observe: given each cell's result, again whenever there is more of it.
        progress: told what is being done, and the share that is done.
        crew: who does it; processes of this machine by default.

    Raises:
        InputError: two cells of one folder, a folder that is not to be replaced, or too few pictures to calibrate on.
        OutputError: a place cannot be written to.
    """
    hands = crew or LocalCrew(settings.cache / "locks")
    refuse_twins(cells)
    refuse_unwritable(settings.out)
    for cell in cells:
        refuse_foreign(settings.out / cell.name)
    found: dict[str, CellResult] = {}
    exact = [cell for cell in cells if cell.precision == "f32"]
    narrow = [cell for cell in cells if cell.precision != "f32"]
    if narrow and settings.images is not None:
        from mbexport.quantize.shown import refuse_few

        refuse_few(settings.images)
    for group, workers in ((exact, settings.workers), (narrow, 1)):
        each = max(1, settings.threads // workers)
        for outcome in hands.outcomes([_order(cell, settings, each) for cell in group], workers):
            result = _result(outcome)
            found[result.name] = result
            observe(result)
            progress(f"{result.name} is built", len(found) / len(cells))
    for number, name in enumerate([cell.name for cell in cells if found[cell.name].passed] if settings.bench else []):
        progress(f"measure {name}", number / len(cells))
        found[name] = _benched(found[name], settings, hands, progress)
        observe(found[name])
    results = [found[cell.name] for cell in cells]
    return SweepReport(passed=all(result.passed for result in results), cells=results)


def _order(cell: Cell, settings: Settings, threads: int) -> Order:
    return Order(
        cell=msgspec.structs.replace(cell, weights=weights_of.absolute(cell.weights)),
        out=str(settings.out.absolute()),
        cache=str(settings.cache.absolute()),
        images=_text(settings.images),
        labels=_text(settings.labels),
        golden=_text(settings.golden),
        targets=list(settings.targets),
        threads=threads,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _result(outcome: Outcome) -> CellResult:
    cell, came = outcome.order.cell, outcome.delivery
    if came is None:
        return CellResult(name=cell.name, cell=cell, error=outcome.error)
    failed = [row for row in came.validation.rows if not row.passed]
    return CellResult(
        name=cell.name,
        cell=cell,
        artifact=came.artifact,
        sha256=came.sha256,
        cached=not came.was_built and not came.was_validated,
        build_s=came.build_s,
        validate_s=came.validate_s,
        validation=came.validation,
        machine=came.machine,
        versions=came.versions,
        notes=came.notes,
        error=f"{failed[0].runtime} {failed[0].mode}: {failed[0].reason}" if failed else None,
    )


def _benched(
    result: CellResult, settings: Settings, crew: Crew, progress: Callable[[str, float | None], None]
) -> CellResult:
    assert result.artifact is not None
    assert settings.bench is not None
    try:
        artifact = read_artifact(Path(result.artifact))
        found = crew.rows(artifact, settings, settings.bench, progress)
    except MbexportError as error:
        return msgspec.structs.replace(result, error=f"not measured: {error}")
    rows = [row for each in found.values() for row in each]
    machines = [machine for machine, each in found.items() for _ in each]
    return msgspec.structs.replace(result, rows=rows, measured_on=machines)
