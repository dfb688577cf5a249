"""The runtimes side by side, in both modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.analysis.report import bars, text
from mbexport.analysis.report.parts import Panel, Plot, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mbexport.analysis.report.data import Row, Series
    from mbexport.analysis.report.style import Style


def panel(rows: Sequence[Row], look: Mapping[Series, Style]) -> Panel:
    if not rows:
        return Panel(notes=["Every row of this setting is invalid, so there is nothing to draw."])
    drawings = list(bars.grouped(rows, look, "p50, ms", lambda row: row.figures.p50_s * 1e3, _label))
    notes = [f"{text.NOISY} before a figure: a noisy row."] if any(row.noisy for row in rows) else []
    if len({row.series.runtime for row in rows}) == 1:
        notes.append(f"Only {rows[0].series.runtime} was measured in this setting.")
    return Panel(
        plots=[
            Plot(drawing, text.part("p50 of each runtime and mode", number, len(drawings)), _summary(rows, names))
            for number, (names, drawing) in enumerate(drawings, start=1)
        ],
        tables=[_table(rows)],
        notes=notes,
    )


def _label(row: Row) -> str:
    return text.marked(row, text.short_milliseconds(row.figures.p50_s))


def _summary(rows: Sequence[Row], networks: Sequence[str]) -> str:
    fastest = (min((row for row in rows if row.label == name), key=lambda row: row.figures.p50_s) for name in networks)
    told = "; ".join(f"{row.label} on {row.series.text}, {_label(row)} ms" for row in fastest)
    return f"Grouped bars of median latency. The fastest of each network: {told}."


def _table(rows: Sequence[Row]) -> Table:
    columns = ("network", "runtime", "mode", "precision", "p50 ms", "95% interval ms", "pictures/s", "verdict")
    return Table(
        "Runtimes side by side",
        columns,
        [
            (
                row.network,
                *row.series,
                text.milliseconds(row.figures.p50_s),
                text.interval(row.figures.p50_ci_s),
                f"{row.figures.throughput_per_s:.1f}",
                row.measured.verdict,
            )
            for row in rows
        ],
        frozenset(columns[4:7]),
    )
