"""All latencies of each row: the share of calls that took no longer, with p50, p90 and p99 marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport.analysis.report import style, text
from mbexport.analysis.report.data import networks_of
from mbexport.analysis.report.parts import Panel, Plot, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plotly.graph_objects import Scatter

    from mbexport.analysis.report.data import Row, Series

SHARES = (0.0, *(step / 40 for step in range(1, 36)), *(step / 100 for step in range(90, 100)), 0.995, 0.999, 1.0)
"""Where the curves have points: each fortieth, and each hundredth of the slowest tenth."""
_TABLED = (0.0, 0.25, 0.75, 1.0)
_HEIGHT, _ROOM = 220, 1.03


def panel(rows: Sequence[Row], look: Mapping[Series, style.Style]) -> Panel:
    networks = networks_of(rows)
    if not networks:
        return Panel(notes=["Every row of this setting is invalid, so there is nothing to draw."])
    notes = ["The marks on each curve are p50, p90 and p99; one that too few calls support is left out."]
    if any(row.noisy for row in rows):
        notes.append("Hollow marks: noisy rows.")
    return Panel(
        plots=[_plot([row for row in rows if row.label == network], look) for network in networks],
        cards=True,
        legend=style.legend_html({name: look[name] for name in sorted({row.series for row in rows})}),
        tables=[_table(rows)],
        notes=notes,
    )


def quantiles_ms(row: Row, shares: Sequence[float]) -> list[float]:
    """Of all processes' calls together, in milliseconds, interpolated linearly."""
    import numpy as np

    samples_ns = np.asarray(row.measured.samples_ns, dtype=np.float64)
    found: list[float] = (np.quantile(samples_ns, shares) / 1e6).tolist()
    return found


def _marks_of(row: Row) -> dict[float, float]:
    """Share -> seconds of the percentiles that the samples suffice for."""
    figures = row.figures
    known = {0.5: figures.p50_s, 0.9: figures.p90_s, 0.99: figures.p99_s}
    return {share: value for share, value in known.items() if value is not None}


def _plot(rows: Sequence[Row], look: Mapping[Series, style.Style]) -> Plot:
    curves = {row.network + str(row.series): quantiles_ms(row, SHARES) for row in rows}
    traces = [
        trace
        for row in rows
        for trace in _traces(row, curves[row.network + str(row.series)], look[row.series])
    ]  # fmt: skip
    drawing = style.figure(
        traces,
        _HEIGHT,
        margin={"l": 8, "r": 8, "t": 6, "b": 40},
        xaxis=style.log_axis("ms", [value for curve in curves.values() for value in curve], _ROOM),
        yaxis=style.axis("", range=[-0.02, 1.04], tickvals=[0, 0.5, 0.9, 0.99], ticktext=["0", "p50", "p90", "p99"]),
        showlegend=False,
        font={"size": 11},
    )
    told = "; ".join(f"{row.series.text}: {_told(row)}" for row in rows)
    return Plot(drawing, rows[0].label, f"Cumulative distribution of {rows[0].label}'s latencies. {told}.")


def _told(row: Row) -> str:
    names = {0.5: "p50", 0.9: "p90", 0.99: "p99"}
    marks = _marks_of(row).items()
    return ", ".join(f"{names[share]} {text.milliseconds(value_s)} ms" for share, value_s in marks)


def _traces(row: Row, curve_ms: Sequence[float], marks: style.Style) -> list[Scatter]:
    import plotly.graph_objects as go

    percentiles = _marks_of(row)
    line: dict[str, Any] = {"color": marks.colour, "width": 1.8, "dash": marks.dash}
    return [
        go.Scatter(x=[round(value, 4) for value in curve_ms], y=list(SHARES), mode="lines", line=line,
                   hoverinfo="skip"),
        go.Scatter(
            x=[value * 1e3 for value in percentiles.values()],
            y=list(percentiles),
            mode="markers",
            marker={
                "color": marks.colour,
                "size": 8,
                "symbol": marks.symbol + ("-open" if row.noisy else ""),
                "line": {"width": 1.5, "color": marks.colour},
            },
            hovertext=style.plain(f"{row.series.text}, {row.measured.verdict}: {_told(row)}"),
            hoverinfo="text",
        ),
    ]  # fmt: skip


def _table(rows: Sequence[Row]) -> Table:
    figures = ("calls", "least ms", "p25 ms", "p50 ms", "p75 ms", "p90 ms", "p99 ms", "most ms")
    return Table(
        "Latency distributions",
        ("network", "runtime", "mode", "precision", *figures, "verdict"),
        [(row.network, *row.series, *_cells(row), row.measured.verdict) for row in rows],
        frozenset(figures),
    )


def _cells(row: Row) -> list[str]:
    least, p25, p75, most = (text.milliseconds(value * 1e-3) for value in quantiles_ms(row, _TABLED))
    few = "too few"
    p50, p90, p99 = (
        text.milliseconds(value, few) for value in (row.figures.p50_s, row.figures.p90_s, row.figures.p99_s)
    )
    return [str(row.figures.samples), least, p25, p50, p75, p90, p99, most]
