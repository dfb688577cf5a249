"""What sections are made of, and the pieces of HTML that they become. Everything that comes from a profile is escaped
here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Plot:
    """A drawing, its caption, and what it shows in a sentence or two for those who do not see it."""

    figure: Figure
    caption: str
    summary: str


@dataclass(frozen=True)
class Table:
    """Cells as plain text; the first of each row is its heading, and columns in ``numbers`` are flush right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Panel:
    """One section's contents for one setting."""

    plots: Sequence[Plot] = ()
    cards: bool = False
    """Whether the plots are small ones that stand side by side."""
    legend: str = ""
    """HTML above the plots."""
    tables: Sequence[Table] = ()
    """The same figures as the plots'."""
    notes: Sequence[str] = ()
    """Sentences: why there is no plot, what is not in it."""
    steps: Sequence[str] = field(default=())
    """What the numbers in a plot stand for, from 1."""


def table_html(table: Table, table_id: str) -> str:
    """A table in a box that scrolls sideways by keyboard, too, where it is wider than the page."""
    heads = "".join(f'<th scope="col"{_right(table, name)}>{escape(name)}</th>' for name in table.columns)
    body = "\n".join(_line(table, cells) for cells in table.rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{table_id}">\n'
        f'<table>\n<caption id="{table_id}">{escape(table.caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _line(table: Table, cells: Sequence[str]) -> str:
    first, *others = zip(table.columns, cells, strict=True)
    head = f'<th scope="row"{_right(table, first[0])}>{escape(first[1])}</th>'
    return f"<tr>{head}{''.join(f'<td{_right(table, name)}>{escape(cell)}</td>' for name, cell in others)}</tr>"


def _right(table: Table, column: str) -> str:
    return ' class="number"' if column in table.numbers else ""


def plot_html(plot: Plot, plot_id: str) -> str:
    """The place of a plot; the page's script draws into it. What it draws is hidden from screen readers, which get the
    summary instead.
    """
    height = plot.figure.layout.height
    return (
        f"<figure>\n<figcaption>{escape(plot.caption)}</figcaption>\n"
        f'<div class="plot" role="img" aria-label="{escape(plot.summary)}">'
        f'<div id="{plot_id}" aria-hidden="true" style="height:{height}px"></div></div>\n</figure>'
    )


def inside_script(json: str) -> str:
    """JSON of the same meaning whose texts cannot end the script element (``</``) or hide its end (``<!--``)."""
    return json.replace("<", "\\u003c")


def paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>\n" for text in texts)


def numbered(texts: Sequence[str]) -> str:
    return "<ol>\n" + "".join(f"<li>{escape(text)}</li>\n" for text in texts) + "</ol>\n" if texts else ""


def details(text: str, body: str) -> str:
    """Open, so that nothing is hidden where scripts do not run; the page's script closes it."""
    return f"<details open><summary>{escape(text)}</summary>\n{body}\n</details>"


def listing(pairs: Sequence[tuple[str, str]]) -> str:
    return "<dl>\n" + "".join(f"<div><dt>{escape(a)}</dt><dd>{escape(b)}</dd></div>\n" for a, b in pairs) + "</dl>\n"
