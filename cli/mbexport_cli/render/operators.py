"""Where an inference spends its time, operator by operator."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import milliseconds, new_table, note

if TYPE_CHECKING:
    from mbexport.operators.table import Achieved, OperatorTable

_FIGURES = ("ms", "share", "GMAC/s", "GB/s")
_FORMS = {"depthwise": "dw"}


def operators(table: "OperatorTable") -> Iterator[RenderableType]:
    """The types of operators, then the slowest nodes, then what the figures are worth."""
    yield Text(f"{table.artifact}: operators on {table.runtime}", style="bold")
    yield f"{table.mode} {table.precision}, threads: {table.threads}, batch: {table.batch}"
    yield ""
    yield _types(table)
    yield ""
    yield _slowest(table)
    yield ""
    yield from _worth(table)


def _types(table: "OperatorTable") -> RenderableType:
    types = new_table("operator", "nodes", *_FIGURES, "bound", right=("nodes", *_FIGURES))
    for row in table.rows:
        form = "" if row.form is None else f" {_FORMS.get(row.form, row.form)}"
        types.add_row(f"{row.operator}{form}", str(row.nodes), *_figures(row), row.bound or "-")
    return types


def _slowest(table: "OperatorTable") -> RenderableType:
    nodes = new_table("slowest nodes", "ms", "share", "output", right=("ms", "share"))
    for row in table.slowest:
        name = row.made_of[0] if row.made_of else row.name
        shape = "-" if row.shape is None else "x".join(map(str, row.shape))
        nodes.add_row(name, milliseconds(row.time_s), f"{row.share:.1%}", shape)
    return nodes


def _figures(row: "Achieved") -> tuple[str, ...]:
    """What is not known, and the arithmetic of what does none, is a dash."""
    arithmetic = _rate(row.macs_per_s, row.arithmetic_share) if row.macs else "-"
    return milliseconds(row.time_s), f"{row.share:.1%}", arithmetic, _rate(row.bytes_per_s, row.memory_share)


def _worth(table: "OperatorTable") -> Iterator[RenderableType]:
    best = table.rates
    if best is not None:
        products, stream = _rate(best.macs_per_s, None), _rate(best.bytes_per_s, None)
        yield f"% of the best here: {products} GMAC/s in 1x1 convolutions, {stream} GB/s in memory"
    yield (
        f"the operators' times sum to {milliseconds(table.operators_s)} ms, {table.coverage:.0%} of the plain median "
        f"of {milliseconds(table.plain_p50_s)} ms;"
    )
    yield f"watched, an inference takes {milliseconds(table.watched_p50_s)} ms ({table.runs} runs)"
    if table.note is not None:
        yield note(table.note)


def _rate(rate: float | None, share: float | None) -> str:
    """Billions a second, and the share of the best rate here."""
    if rate is None:
        return "-"
    return f"{rate / 1e9:.1f}" + ("" if share is None else f" {share:4.0%}")
