"""How plots look. One set of colours serves light and dark: each has a contrast of 3 or more with either background.

Text, axes and grid get their colours from the page's style sheet, so a plot follows the reader's theme, and the
printer's, without being drawn again. No series is told from another by its colour alone.
"""

from __future__ import annotations

import math
import textwrap
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plotly.graph_objects import Figure

    from mbexport.analysis.report.data import Series

COLOURS = ("#2b7fd4", "#d9660a", "#0f9488", "#a855c7", "#d6457e", "#7c8a12", "#8a6d5a", "#6d7fa8")
PART_COLOURS = ("#768390", "#b7791f", "#1f9d55", "#c9502e")
"""For the parts of a whole, which are no series."""
MIDDLE = "#768390"
"""For lines that belong to no series."""
BACKGROUNDS = ("#ffffff", "#14191f")
"""The page's, light and dark, as in ``page.css``."""
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
_GLYPHS = "●■◆▲▼✚✖★"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
"""Above the plot, in as many lines as it needs."""
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_TICKS = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9))
_FEWEST_TICKS, _LABEL_WIDTH = 4, 22


class Style(NamedTuple):
    """The marks of one series."""

    colour: str
    symbol: str
    glyph: str
    dash: str


def styles(names: Sequence[Series]) -> dict[Series, Style]:
    """A style for each series, in order; beyond eight series the colours come again with other marks."""
    return {name: style(index) for index, name in enumerate(names)}


def style(index: int) -> Style:
    mark = (index + index // len(COLOURS)) % len(_SYMBOLS)
    return Style(
        colour=COLOURS[index % len(COLOURS)],
        symbol=_SYMBOLS[mark],
        glyph=_GLYPHS[mark],
        dash=_DASHES[index % len(_DASHES)],
    )


def legend_html(chosen: dict[Series, Style]) -> str:
    """One legend for many small plots."""
    items = "".join(
        f'<li><span aria-hidden="true" style="color:{style.colour}">{style.glyph}</span> {escape(series.text)}</li>'
        for series, style in chosen.items()
    )
    return f'<ul class="legend">{items}</ul>\n'


def figure(traces: Sequence[Any], height: int, **layout: Any) -> Figure:
    """A figure as wide as its place, ``height`` pixels high."""
    import plotly.graph_objects as go

    usual = {
        "template": "none",
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12},
        "dragmode": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#24292f", "bordercolor": "#24292f", "font": {"color": "#ffffff"}, "align": "left"},
        "legend": LEGEND,
    }
    return go.Figure(list(traces), usual | layout)


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title, "standoff": 8}, "automargin": True, "zeroline": False, "fixedrange": True} | more


def log_axis(title: str, values: Sequence[float], room: float = 1.0, **more: Any) -> dict[str, Any]:
    """A logarithmic axis with few round ticks. ``room`` widens the range by that factor at both ends."""
    low, high = min(values) / room, max(values) * room
    marks = log_ticks(low, high)
    return axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=marks,
        ticktext=[f"{mark:g}" for mark in marks],
        minor={"ticks": ""},
        **more,
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, both above 0: the fewest kinds that give four or more.

    At least one, which is less round where none of them lies between two limits that are near each other.
    """
    inside: list[float] = []
    for steps in _TICKS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [round(step * 10.0**decade, 9) for decade in decades for step in steps]
        inside = [mark for mark in marks if low <= mark <= high]
        if len(inside) >= _FEWEST_TICKS:
            break
    return inside or [float(f"{math.sqrt(low * high):.3g}")]


def category_axis(names: Sequence[str], shown: Sequence[str] | None = None) -> dict[str, Any]:
    """Names from top to bottom, or what is shown for each, in short lines."""
    return axis(
        "",
        type="category",
        categoryorder="array",
        categoryarray=list(names),
        range=[len(names) - 0.5, -0.5],
        tickvals=list(names),
        ticktext=[wrapped(name) for name in shown or names],
        showgrid=False,
        ticklabelstandoff=6,
        tickfont={"size": 11},
    )


def wrapped(text: str) -> str:
    """Plotly reads tags in its texts: escaped, with breaks between short lines."""
    return "<br>".join(plain(line) for line in textwrap.wrap(text, _LABEL_WIDTH) or [""])


def plain(text: str) -> str:
    """Text that Plotly shows as it is: neither tags nor, between dollars, formulas."""
    return escape(text, quote=False).replace("$", "&#36;")
