"""Published accuracy against measured latency, and which networks nothing beats in both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mbexport.analysis.report import style, text
from mbexport.analysis.report.data import networks_of
from mbexport.analysis.report.parts import Panel, Plot, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from plotly.graph_objects import Scatter

    from mbexport.analysis.report.data import Row, Series

_HEIGHT, _MARK = 460, 10
_ROOM = 1.15
"""The horizontal axis reaches this factor beyond the outermost points."""


def panel(rows: Sequence[Row], look: Mapping[Series, style.Style]) -> Panel:
    points = drawn(rows)
    notes = list(_left_out(rows))
    if not points:
        return Panel(notes=["No network here has a published top-1 accuracy, so there is nothing to draw.", *notes])
    front = pareto_front(points)
    if any(row.noisy for row in points):
        notes.append(f"Hollow marks, and {text.NOISY} before a figure: noisy rows.")
    return Panel(
        plots=[
            Plot(
                _figure(points, front, look),
                "Published top-1 against p50, with the 95% interval of p50; the numbers are explained below",
                f"Scatter plot of {text.count(len(points), 'point')}, published top-1 accuracy against median latency. "
                f"On the Pareto front, from fast to slow: {'; '.join(_named(row) for row in front)}.",
            )
        ],
        steps=[_named(row) for row in front],
        tables=[_table(points, front)],
        notes=notes,
    )


def _left_out(rows: Sequence[Row]) -> Iterator[str]:
    """Why, and which."""
    unknown = [row for row in rows if row.published is None]
    narrower = networks_of(row for row in unknown if row.precision != "f32")
    others = networks_of(row for row in unknown if row.precision == "f32")
    if narrower:
        yield f"Not drawn, as published top-1 are those of float32 files: {text.listed(narrower)}."
    if others:
        yield f"Not drawn, as no published top-1 is known: {text.listed(others)}."


def drawn(rows: Sequence[Row]) -> list[Row]:
    """Rows with a known top-1, one for each network, runtime and precision.

    Where both modes ran in the same precision they are the same computation: parity stands for both.
    """
    chosen: dict[tuple[str, str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.series.mode != "parity"):
        if row.published is not None:
            chosen.setdefault((row.network, row.series.runtime, row.series.precision), row)
    return [row for row in rows if row in chosen.values()]


def pareto_front(points: Sequence[Row]) -> list[Row]:
    """The points that no other one equals or beats in both p50 and top-1, from fast to slow."""
    front: list[Row] = []
    for row in sorted(points, key=lambda row: (row.figures.p50_s, -_top1(row))):
        if not front or _top1(row) > _top1(front[-1]):
            front.append(row)
    return front


def _top1(row: Row) -> float:
    assert row.published is not None
    return row.published.top1


def _named(row: Row) -> str:
    return (
        f"{row.label}, {row.series.runtime} {row.series.precision}: "
        f"{text.marked(row, text.short_milliseconds(row.figures.p50_s))} ms, {text.percent(_top1(row))} %"
    )


def _figure(points: Sequence[Row], front: Sequence[Row], look: Mapping[Series, style.Style]) -> Any:
    traces = [
        trace
        for series in sorted({row.series for row in points})
        for trace in _marks([row for row in points if row.series == series], look[series])
    ]
    reach_ms = [bound * 1e3 for row in points for bound in (*row.figures.p50_ci_s, row.figures.p50_s)]
    return style.figure(
        [_line(front), *traces],
        _HEIGHT,
        xaxis=style.log_axis("p50, ms (logarithmic)", reach_ms, _ROOM),
        yaxis=style.axis("published top-1, %"),
        annotations=[_number(number, row) for number, row in enumerate(front, start=1)],
    )


def _marks(rows: Sequence[Row], marks: style.Style) -> list[Scatter]:
    """The points, and for the legend a full mark, which the first point may not be."""
    import plotly.graph_objects as go

    marker = {"color": marks.colour, "size": _MARK, "line": {"width": 2, "color": marks.colour}}
    name = style.plain(f"{rows[0].series.runtime} {rows[0].series.precision}")
    points = go.Scatter(
        x=[row.figures.p50_s * 1e3 for row in rows],
        y=[_top1(row) * 100 for row in rows],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(row.figures.p50_ci_s[1] - row.figures.p50_s) * 1e3 for row in rows],
            "arrayminus": [(row.figures.p50_s - row.figures.p50_ci_s[0]) * 1e3 for row in rows],
            "thickness": 1.5,
            "width": 4,
        },
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=False,
        marker=marker | {"symbol": [marks.symbol + ("-open" if row.noisy else "") for row in rows]},
        hovertext=[style.plain(f"{_named(row)}, {row.measured.verdict}") for row in rows],
        hoverinfo="text",
    )
    key = go.Scatter(
        x=[None], y=[None], mode="markers", name=name, legendgroup=name, marker=marker | {"symbol": marks.symbol}
    )
    return [points, key]


def _line(front: Sequence[Row]) -> Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[row.figures.p50_s * 1e3 for row in front],
        y=[_top1(row) * 100 for row in front],
        mode="lines",
        name="Pareto front",
        line={"color": style.MIDDLE, "width": 1.5, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )


def _number(number: int, row: Row) -> dict[str, Any]:
    """Above and left of a point of the front, where no other point can be."""
    return {
        "x": math.log10(row.figures.p50_s * 1e3),
        "y": _top1(row) * 100,
        "text": str(number),
        "showarrow": False,
        "xshift": -13,
        "yshift": 11,
    }


def _table(points: Sequence[Row], front: Sequence[Row]) -> Table:
    columns = ("network", "runtime", "mode", "precision", "top-1 %", "p50 ms", "95% interval ms", "front", "verdict")
    return Table(
        "Published top-1 accuracy and p50",
        columns,
        [
            (
                row.network,
                *row.series,
                text.percent(_top1(row)),
                text.milliseconds(row.figures.p50_s),
                text.interval(row.figures.p50_ci_s),
                "yes" if row in front else "no",
                row.measured.verdict,
            )
            for row in points
        ],
        frozenset(columns[4:7]),
    )
