"""Cold start: what a fresh process takes until its first answer, part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mbexport.analysis.report import bars, style, text
from mbexport.analysis.report.data import networks_of
from mbexport.analysis.report.parts import Panel, Plot, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from plotly.graph_objects import Bar, Figure

    from mbexport.analysis.report.data import Row, Series
    from mbexport.bench.rows import BenchRow
    from mbexport.profile import ColdStart

_PARTS = ("start", "import", "load", "first inference")
_PREPARED = "prepared"
_BAR, _AROUND, _MOST_HEIGHT = 28, 90, 900
_LABEL_ROOM = 1.15


class Cold(NamedTuple):
    """One bar: its seconds by part, each the median over processes; None where no process recorded it."""

    label: str
    row: Row
    prepared: bool
    parts_s: tuple[float | None, ...]

    @property
    def total_s(self) -> float:
        return sum(part for part in self.parts_s if part is not None)


def panel(rows: Sequence[Row], _look: Mapping[Series, style.Style]) -> Panel:
    if not rows:
        return Panel(notes=["Every row of this setting is invalid, so there is nothing to draw."])
    colds = [cold for row in rows for cold in _colds(row)]
    notes = []
    if any(cold.prepared for cold in colds):
        notes.append(
            "Prepared: a fresh process that found what the engine had kept of the network at an earlier start."
        )
    else:
        notes.append("Starts that find what the engine kept of an earlier one (a model cache) were not measured.")
    if any(cold.parts_s[0] is None for cold in colds):
        notes.append("Some rows do not record the process's own start: their bars begin with the import.")
    reach_ms = max(cold.total_s for cold in colds) * 1e3 * _LABEL_ROOM
    return Panel(
        plots=[
            plot
            for name in sorted({row.series for row in rows})
            for plot in _plots(name, [cold for cold in colds if cold.row.series == name], reach_ms)
        ],
        tables=[_table(colds)],
        notes=notes,
    )


def _colds(row: Row) -> Iterator[Cold]:
    yield Cold(row.label, row, prepared=False, parts_s=_parts(row.figures))
    if row.figures.prepared is not None:
        yield Cold(f"{row.label}, {_PREPARED}", row, prepared=True, parts_s=_parts(row.figures.prepared))


def _parts(start: BenchRow | ColdStart) -> tuple[float | None, ...]:
    return start.start_s, start.import_s, start.load_s, start.first_inference_s


def _plots(series: Series, colds: Sequence[Cold], reach_ms: float) -> Iterator[Plot]:
    names = networks_of(cold.row for cold in colds)
    bars_each = max(sum(cold.row.label == name for cold in colds) for name in names)
    parts = list(bars.chunks(names, _BAR * bars_each, _MOST_HEIGHT - _AROUND))
    for number, networks in enumerate(parts, start=1):
        shown = [cold for cold in colds if cold.row.label in networks]
        quick, slow = min(shown, key=_total), max(shown, key=_total)
        ends = (f"{text.milliseconds(cold.total_s)} ms, {cold.label}" for cold in (quick, slow))
        yield Plot(
            _figure(shown, reach_ms),
            text.part(f"Until the first answer, {series.text}", number, len(parts)),
            f"Stacked bars of cold start on {series.text}. In all, from {' to '.join(ends)}.",
        )


def _total(cold: Cold) -> float:
    return cold.total_s


def _figure(colds: Sequence[Cold], reach_ms: float) -> Figure:
    return style.figure(
        [bar for part, name in enumerate(_PARTS) if (bar := _bar(colds, part, name)) is not None],
        _AROUND + _BAR * len(colds),
        barmode="stack",
        bargap=0.3,
        xaxis=style.axis("ms", range=[0, reach_ms]),
        yaxis=style.category_axis(
            [cold.label for cold in colds], [_PREPARED if cold.prepared else cold.label for cold in colds]
        ),
        legend=style.LEGEND | {"traceorder": "normal"},
        uniformtext={"mode": "hide", "minsize": 10},
    )


def _bar(colds: Sequence[Cold], part: int, name: str) -> Bar | None:
    """One part of every bar, with its name inside where there is room; the last part carries the whole's figure."""
    import plotly.graph_objects as go

    known = [(cold, value) for cold in colds if (value := cold.parts_s[part]) is not None]
    if not known:
        return None
    last = part == len(_PARTS) - 1
    return go.Bar(
        orientation="h",
        y=[cold.label for cold, _ in known],
        x=[round(value * 1e3, 3) for _, value in known],
        name=name,
        marker={"color": style.PART_COLOURS[part]},
        text=[text.short_milliseconds(cold.total_s) if last else name for cold, _ in known],
        textposition="outside" if last else "inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 10},
        cliponaxis=False,
        hoverinfo="x+name",
    )


def _table(colds: Sequence[Cold]) -> Table:
    figures = (*(f"{part} ms" for part in _PARTS), "in all ms")
    return Table(
        "Cold start",
        ("network", "runtime", "mode", "precision", "start", *figures),
        [
            (
                cold.row.network,
                *cold.row.series,
                _PREPARED if cold.prepared else "fresh",
                *(text.milliseconds(part) for part in (*cold.parts_s, cold.total_s)),
            )
            for cold in colds
        ],
        frozenset(figures),
    )
