"""What a loaded network adds to a process, and what the whole process takes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from mbexport.analysis.report import bars, text
from mbexport.analysis.report.parts import Panel, Plot, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mbexport.analysis.report.data import Row, Series
    from mbexport.analysis.report.style import Style

_GROWTH = "Memory that the network adds by its first inference"
_PEAK = "Peak memory of the whole process: Python, the engine and the network"


def panel(rows: Sequence[Row], look: Mapping[Series, Style]) -> Panel:
    if not rows:
        return Panel(notes=["Every row of this setting is invalid, so there is nothing to draw."])
    return Panel(
        plots=[
            *_plots(rows, look, _GROWTH, lambda row: row.figures.memory_bytes),
            *_plots(rows, look, _PEAK, lambda row: row.figures.memory_peak_bytes),
        ],
        tables=[_table(rows)],
    )


def _plots(
    rows: Sequence[Row], look: Mapping[Series, Style], caption: str, size: Callable[[Row], int]
) -> Iterator[Plot]:
    def label(row: Row) -> str:
        return text.megabytes(size(row))

    drawings = list(bars.grouped(rows, look, "MB", lambda row: size(row) / 1e6, label))
    for number, (networks, drawing) in enumerate(drawings, start=1):
        shown = [row for row in rows if row.label in networks]
        least, most = min(shown, key=size), max(shown, key=size)
        ends = (f"{label(row)} MB, {row.label} on {row.series.text}" for row in (least, most))
        name = text.part(caption, number, len(drawings))
        yield Plot(drawing, name, f"Grouped bars. {caption}: from {' to '.join(ends)}.")


def _table(rows: Sequence[Row]) -> Table:
    figures = ("after load MB", "after first inference MB", "peak of process MB")
    return Table(
        "Memory",
        ("network", "runtime", "mode", "precision", *figures),
        [(row.network, *row.series, *_cells(row)) for row in rows],
        frozenset(figures),
    )


def _cells(row: Row) -> list[str]:
    loaded = median(replicate.memory_loaded_bytes for replicate in row.measured.replicates)
    return [text.megabytes(size) for size in (loaded, row.figures.memory_bytes, row.figures.memory_peak_bytes)]
