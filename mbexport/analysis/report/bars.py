"""Grouped bars: one figure of every row, network by network and runtime by runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.analysis.report import style
from mbexport.analysis.report.data import networks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from plotly.graph_objects import Bar, Figure

    from mbexport.analysis.report.data import Row, Series

_MOST_HEIGHT = 900
"""A printed page holds this many pixels; more networks go into another plot."""
_BAR, _GAP, _AROUND = 12, 10, 90
_LEGEND_LINE = 18
"""Height of two series in the legend, beyond the first four."""
_LABEL_ROOM = 1.2
"""The horizontal axis reaches this factor beyond the longest bar, for the mark and the figure at its end."""


def grouped(
    rows: Sequence[Row],
    look: Mapping[Series, style.Style],
    title: str,
    value: Callable[[Row], float],
    label: Callable[[Row], str],
) -> Iterator[tuple[list[str], Figure]]:
    """The networks of each drawing, and the drawing.

    Args:
        rows: of one setting, one at least.
        look: every series' marks.
        title: the horizontal axis'.
        value: how long a row's bar is.
        label: what stands at its end.
    """
    series = sorted({row.series for row in rows})
    reach = [0, max(value(row) for row in rows) * _LABEL_ROOM]
    places = len({_place(name) for name in series})
    for networks in chunks(networks_of(rows), _BAR * places + _GAP, _MOST_HEIGHT - _AROUND):
        chosen = [row for row in rows if row.label in networks]
        traces = [
            _bars([row for row in chosen if row.series == name], look[name], value, label)
            for name in series
            if any(row.series == name for row in chosen)
        ]
        drawn = len({trace.offsetgroup for trace in traces})
        legend = _LEGEND_LINE * max(0, -(-len(traces) // 2) - 2)
        height = _AROUND + legend + len(networks) * (_BAR * drawn + _GAP)
        yield (
            networks,
            style.figure(
                traces,
                height,
                barmode="group",
                bargap=_GAP / (_BAR * drawn + _GAP),
                xaxis=style.axis(title, range=reach),
                yaxis=style.category_axis(networks),
            ),
        )


def chunks(names: Sequence[str], each: int, room: int) -> Iterator[list[str]]:
    """The names in as few parts of about equal size as fit: ``each`` pixels for one of them, ``room`` for a part."""
    most = max(1, room // each)
    parts = -(-len(names) // most)
    size = -(-len(names) // parts)
    for start in range(0, len(names), size):
        yield list(names[start : start + size])


def _place(series: Series) -> str:
    """A network has one precision on a runtime in a mode, so series that differ in that alone share a place."""
    return f"{series.runtime} {series.mode}"


def _bars(rows: Sequence[Row], marks: style.Style, value: Callable[[Row], float], label: Callable[[Row], str]) -> Bar:
    import plotly.graph_objects as go

    return go.Bar(
        orientation="h",
        offsetgroup=_place(rows[0].series),
        y=[row.label for row in rows],
        x=[round(value(row), 4) for row in rows],
        name=style.plain(f"{marks.glyph} {rows[0].series.text}"),
        marker={"color": marks.colour},
        text=[f"{marks.glyph} {label(row)}" for row in rows],
        textposition="outside",
        textfont={"size": 10},
        cliponaxis=False,
        hoverinfo="x+name",
    )
