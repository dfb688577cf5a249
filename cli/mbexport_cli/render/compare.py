"""Answers from several machines: against the truth, and against the first of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mbexport_cli.render.parts import decibels, flipped, new_table, note, verdict

if TYPE_CHECKING:
    from mbexport.compare_saved import ComparedFile, ComparedRow, Difference, SavedComparison

_FIGURES = ("SQNR dB", "least", "max error", "top-1")


def compared(report: "SavedComparison") -> Iterator[RenderableType]:
    """The files have numbers, which stand before each runtime: their names may be long."""
    numbers = {file.file: number for number, file in enumerate(report.files, start=1)}
    for file in report.files:
        yield from _origin(numbers[file.file], file)
    yield ""
    names = [f"{numbers[row.file]} {row.runtime}" for row in report.rows]
    truth, first = (new_table(f"against {what}", "mode", *_FIGURES, "verdict", right=_FIGURES) for what in _AGAINST)
    for name, row in zip(names, report.rows, strict=True):
        _add(truth, name, row, row.truth, passed=row.passed)
        if row.first is not None:
            _add(first, name, row, row.first, passed=row.first.passed)
    yield truth
    yield from (f"least {least} dB: {origin}" for least, origin in _origins(report).items())
    if first.row_count:
        yield ""
        yield first
        yield f"first is {names[0]} {report.rows[0].mode}; least: {_pair_origin(report)}"
    for name, row in zip(names, report.rows, strict=True):
        yield from _remarks(f"{name} {row.mode}", row)
    yield from (note(line) for line in report.notes)


_AGAINST = ("truth", "first")


def _origin(number: int, file: "ComparedFile") -> Iterator[RenderableType]:
    yield Text(f"{number} {file.file}", style="bold")
    yield f"  {file.artifact} on {file.cpu} ({file.hardware})"
    yield f"  {', '.join(f'{name} {version}' for name, version in file.versions.items())}"


def _add(table: Table, name: str, row: "ComparedRow", found: "Difference", *, passed: bool) -> None:
    table.add_row(
        name,
        f"{row.mode} {row.precision.effective or '-'}",
        decibels(found.sqnr_db, exact=found.passed),
        "-" if found.threshold_db is None else f"{round(found.threshold_db, 1) + 0.0:.1f}",  # never -0.0
        "-" if found.max_abs_error is None else f"{found.max_abs_error:.1e}",
        "-" if found.top1_agreement is None else f"{found.top1_agreement:.0%}",
        verdict("passed" if passed else "FAILED"),
    )


def _origins(report: "SavedComparison") -> dict[str, str]:
    limits = [row.truth for row in report.rows if row.truth.threshold_db is not None]
    return {f"{limit.threshold_db:.1f}": limit.threshold_origin for limit in limits}


def _pair_origin(report: "SavedComparison") -> str:
    return next((row.first.threshold_origin for row in report.rows if row.first and row.first.threshold_origin), "-")


def _remarks(who: str, row: "ComparedRow") -> Iterator[RenderableType]:
    if row.reason:
        yield note(f"{who}: {row.reason}")
    yield from (note(f"{who}: {flipped(flip)}") for flip in row.truth.flips)
    if row.first is not None:
        yield from (note(f"{who}, from the first row: {flipped(flip)}") for flip in row.first.flips)
