"""Which node goes wrong first, why, and how far every layer stands from the truth."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import new_table, note

if TYPE_CHECKING:
    from mbexport.accuracy.report import Explanation, NodeError

FULL_SCALE_DB = 150.0
"""Above the rounding of float32 itself."""
_BAR_CELLS = 25
_ROW_PX, _NAME_PX, _BAR_PX, _FIGURE_PX, _MARGIN_PX = 16, 320, 420, 90, 16


def explanations(found: "Sequence[Explanation]") -> Iterator[RenderableType]:
    """Rows that go wrong at the same node share the first one's table; the JSON document has all."""
    shown = set()
    for explanation in found:
        yield ""
        yield from _verdict(explanation)
        what = explanation.node or explanation.mode
        if explanation.nodes and what not in shown:
            shown.add(what)
            yield _table(explanation)


def _verdict(found: "Explanation") -> Iterator[RenderableType]:
    who = f"{found.runtime} {found.mode}"
    if found.node is None and not found.suspects:
        yield f"{who}: {'; '.join(found.causes) or 'every node is within the tolerance'}"
        return
    if found.node is None:
        yield note(f"{who}: one of these nodes is wrong: {', '.join(found.suspects)}")
    else:
        yield note(f"{who}: the first wrong node is {found.node} ({found.op}, layer {found.layer})")
        if found.tolerance_db is not None:
            answer = "no number" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"
            yield f"  its output: {answer}, at least {found.tolerance_db:.1f} dB expected"
        for name, sqnr_db in found.input_errors.items():
            yield f"  its input {name}: {'bit-equal, or no number' if sqnr_db is None else f'{sqnr_db:.1f} dB'}"
    yield from (f"  {cause}" for cause in found.causes)


def _table(found: "Explanation") -> RenderableType:
    table = new_table("layer", "SQNR dB", "", right=("SQNR dB",))
    for worst in _layers(found):
        style = "" if worst.within else "bold red" if worst.node == found.node else "red"
        table.add_row(Text(worst.layer, style=style), _figure(worst), Text("█" * round(_share(worst) * _BAR_CELLS)))
    return table


def _layers(found: "Explanation") -> "list[NodeError]":
    """The worst node of each Keras layer, the layers in the graph's order; the culprit stands for its own."""
    worst: dict[str, NodeError] = {}
    for node in found.nodes:
        if node.layer not in worst or (worst[node.layer].node != found.node and _rank(node) < _rank(worst[node.layer])):
            worst[node.layer] = node
        if node.node == found.node:
            worst[node.layer] = node
    return list(worst.values())


def _rank(node: "NodeError") -> float:
    return node.sqnr_db if node.sqnr_db is not None else FULL_SCALE_DB if node.within else -FULL_SCALE_DB


def _share(node: "NodeError") -> float:
    return min(max(_rank(node), 0.0), FULL_SCALE_DB) / FULL_SCALE_DB


def _figure(node: "NodeError") -> str:
    if node.sqnr_db is not None:
        return f"{node.sqnr_db:.1f}"
    return "bit-equal" if node.within else "no number"


def layers_svg(title: str, found: "Sequence[Explanation]") -> str:
    """Every layer's SQNR as a bar, a panel for each explanation below the other."""
    parts: list[str] = []
    top = _MARGIN_PX
    for explanation in found:
        layers = _layers(explanation)
        head = f"{title}, {explanation.runtime} {explanation.mode}: SQNR of each layer against the build, dB"
        parts.append(_text(_MARGIN_PX, top + _ROW_PX - 4, head, weight="bold"))
        top += _ROW_PX + 8
        if explanation.tolerance_db is not None:
            limit = _NAME_PX + _BAR_PX * explanation.tolerance_db / FULL_SCALE_DB
            bottom = top + _ROW_PX * len(layers)
            parts.append(f'<path d="M{limit:.1f} {top}V{bottom}" stroke="#555" stroke-dasharray="4 3"/>')
        for layer in layers:
            parts += _bar(layer, top, is_culprit=layer.node == explanation.node)
            top += _ROW_PX
        top += _MARGIN_PX
    width = _NAME_PX + _BAR_PX + _FIGURE_PX + _MARGIN_PX
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{top}" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _bar(layer: "NodeError", top: int, *, is_culprit: bool) -> Iterator[str]:
    colour = "#2a6fb0" if layer.within else "#b01010" if is_culprit else "#e08a8a"
    width = max(_share(layer) * _BAR_PX, 1.5)
    base = top + _ROW_PX - 4
    yield _text(_NAME_PX - 8, base, layer.layer, anchor="end", weight="bold" if is_culprit else "normal")
    yield f'<rect x="{_NAME_PX}" y="{top + 2}" width="{width:.1f}" height="{_ROW_PX - 4}" fill="{colour}"/>'
    yield _text(_NAME_PX + width + 6, base, _figure(layer))


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
