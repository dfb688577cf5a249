"""Width against resolution: how p50 grows over each family's grid, and where nothing was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mbexport.analysis.report import style, text
from mbexport.analysis.report.parts import Panel, Plot, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plotly.graph_objects import Figure

    from mbexport.analysis.report.data import Row, Series

_CELL, _AROUND = 38, 60
_PALE_TO_DEEP = ((0, "#eef5fc"), (1, "#6aa5dd"))
"""Black text reads on all of it, in light and dark."""
_NOT_MEASURED = "not measured"
_CLASSES = 1000
_FEWEST = 2


class Grid(NamedTuple):
    """One family on one runtime: rows by (alpha, resolution)."""

    family: str
    series: Series
    cells: Mapping[tuple[float, str], Row]

    @property
    def alphas(self) -> list[float]:
        return sorted({alpha for alpha, _ in self.cells})

    @property
    def resolutions(self) -> list[str]:
        """From small to large."""
        pixels = {row.spec.resolution: row.spec.size for row in self.cells.values() if row.spec is not None}
        return sorted(pixels, key=lambda name: (pixels[name][0] * pixels[name][1], name))

    @property
    def name(self) -> str:
        return f"{self.family}, {self.series.text}"


def panel(rows: Sequence[Row], _look: Mapping[Series, style.Style]) -> Panel:
    families: dict[str, list[Grid]] = {}
    for grid in grids(rows):
        families.setdefault(grid.family, []).append(grid)
    shown = [grid for each in families.values() for grid in each if _is_grid(grid)]
    notes = [_why_not(family, each) for family, each in families.items() if not any(map(_is_grid, each))]
    if not families:
        notes = ["No network of MobileNetV2 or V3 with ImageNet's classifier was measured in this setting."]
    if any(row.noisy for grid in shown for row in grid.cells.values()):
        notes.append(f"{text.NOISY} before a figure: a noisy row.")
    return Panel(
        plots=[Plot(_figure(grid), grid.name, _summary(grid)) for grid in shown],
        cards=True,
        tables=[_table(shown)] if shown else [],
        notes=notes,
    )


def grids(rows: Sequence[Row]) -> list[Grid]:
    """Of ImageNet classifiers of a fixed size with the usual options, by family and series."""
    found: dict[tuple[str, Series], dict[tuple[float, str], Row]] = {}
    for row in rows:
        spec = row.spec
        if spec is None or spec.is_dynamic or not spec.include_top or spec.classes != _CLASSES:
            continue
        if row.measured.unusual:
            continue
        family = "MobileNetV2" if spec.variant == "v2" else f"MobileNetV3 {spec.variant}"
        family += " minimalistic" if spec.minimalistic else ""
        family += "" if row.precision == "f32" else f", {row.precision} file"
        found.setdefault((family, row.series), {})[spec.alpha, spec.resolution] = row
    return [Grid(family, series, cells) for (family, series), cells in sorted(found.items())]


def _is_grid(grid: Grid) -> bool:
    return min(len(grid.alphas), len(grid.resolutions)) >= _FEWEST


def _why_not(family: str, each: Sequence[Grid]) -> str:
    alphas = sorted({f"{alpha:g}" for grid in each for alpha in grid.alphas})
    resolutions = sorted({name for grid in each for name in grid.resolutions})
    words = [
        f"one {noun} only ({names[0]})"
        for noun, names in (("alpha", alphas), ("resolution", resolutions))
        if len(names) < _FEWEST
    ]
    return f"{family}: no map, as {text.listed(words)} was measured." if words else f"{family}: no map on any runtime."


def _figure(grid: Grid) -> Figure:
    """On axes that count cells: Plotly reads a category that looks like a number as a place."""
    import plotly.graph_objects as go

    rows = [[grid.cells.get((alpha, size)) for size in grid.resolutions] for alpha in grid.alphas]
    heat = go.Heatmap(
        z=[[None if row is None else round(row.figures.p50_s * 1e3, 4) for row in line] for line in rows],
        text=[["" if row is None else text.marked(row, _p50(row)) for row in line] for line in rows],
        texttemplate="%{text}",
        textfont={"color": "#000000", "size": 11},
        colorscale=_PALE_TO_DEEP,
        showscale=False,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
    )
    gaps = [
        {"x": column, "y": line, "text": "not<br>measured", "showarrow": False, "font": {"size": 9}}
        for line, cells in enumerate(rows)
        for column, row in enumerate(cells)
        if row is None
    ]
    return style.figure(
        [heat],
        _AROUND + _CELL * len(grid.alphas),
        annotations=gaps,
        xaxis=_cell_axis("resolution, pixels", grid.resolutions),
        yaxis=_cell_axis("alpha", [f"{alpha:g}" for alpha in grid.alphas]),
        margin={"l": 8, "r": 8, "t": 6, "b": 40},
        font={"size": 11},
    )


def _cell_axis(title: str, names: Sequence[str]) -> dict[str, Any]:
    places = list(range(len(names)))
    return style.axis(title, range=[-0.5, len(names) - 0.5], tickvals=places, ticktext=list(names), showgrid=False)


def _p50(row: Row) -> str:
    return text.short_milliseconds(row.figures.p50_s)


def _summary(grid: Grid) -> str:
    ranked = sorted(grid.cells.values(), key=lambda row: row.figures.p50_s)
    quick, slow = (f"{_p50(row)} ms ({row.label})" for row in (ranked[0], ranked[-1]))
    measured = f"{len(ranked)} of {len(grid.alphas) * len(grid.resolutions)} cells were measured"
    return f"Heat map of median latency, {grid.name}: {measured}, from {quick} to {slow}."


def _table(shown: Sequence[Grid]) -> Table:
    figures = ("alpha", "resolution", "p50 ms")
    return Table(
        "p50 by width and resolution",
        ("family", "runtime", "mode", "precision", *figures, "verdict"),
        [
            (grid.family, *grid.series, f"{alpha:g}", size, *_cell(grid.cells.get((alpha, size))))
            for grid in shown
            for alpha in grid.alphas
            for size in grid.resolutions
        ],
        frozenset(figures),
    )


def _cell(row: Row | None) -> tuple[str, str]:
    if row is None:
        return _NOT_MEASURED, text.MISSING
    return text.milliseconds(row.figures.p50_s), row.measured.verdict
