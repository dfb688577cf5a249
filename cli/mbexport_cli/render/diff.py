"""Two profiles side by side."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import milliseconds, new_table, note

if TYPE_CHECKING:
    from mbexport.analysis.diff import DiffReport, DiffRow, RowName

_STYLES = {"slower": "bold red", "faster": "green", "same": "green", "too noisy to tell": "yellow"}
_FIGURES = ("A ms", "B ms", "change", "interval %", "p99")
_MOST_LINES, _MOST_ABSENT = 12, 3
"""Of what is listed below the tables, and of the rows that one side has alone; the JSON document has all."""


def changes(report: "DiffReport") -> Iterator[RenderableType]:
    """A table for each artifact, thread count and batch; then what stands on one side only, and the sum."""
    yield Text(f"A {report.a}")
    yield Text(f"B {report.b}")
    for name in dict.fromkeys(_group(row) for row in report.rows):
        rows = [row for row in report.rows if _group(row) == name]
        yield ""
        yield Text(name, style="cyan")
        yield _table(rows)
        yield _precisions(rows)
        yield from (note(f"{row.runtime} {row.mode}: {row.reason}") for row in rows if row.reason)
    yield ""
    yield from _listed("in question", dict.fromkeys(text for row in report.rows for text in row.differences))
    yield from _listed("not compared", [f"{_name(row)}: {row.reason}" for row in report.not_compared])
    yield from _listed("only in A", [_name(row) for row in report.only_a], _MOST_ABSENT)
    yield from _listed("only in B", [_name(row) for row in report.only_b], _MOST_ABSENT)
    yield from (note(line) for line in report.notes)
    yield "change: B's p50 (offline: time per picture) over A's, of the quieter half of"
    yield "each side's processes; p99: of all samples"
    yield _sum(report)


def _table(rows: "Sequence[DiffRow]") -> RenderableType:
    table = new_table("p50", "mode", *_FIGURES, "verdict", right=_FIGURES)
    for row in rows:
        table.add_row(
            row.runtime,
            row.mode,
            milliseconds(row.a_p50_s),
            milliseconds(row.b_p50_s),
            f"{_percent(row.ratio, 100.0)}%",
            "-" if row.ratio_ci is None else " to ".join(_percent(bound) for bound in row.ratio_ci),
            f"{_percent(row.b_p99_s / row.a_p99_s)}%" if row.a_p99_s and row.b_p99_s else "-",
            Text(row.verdict.removesuffix(" to tell"), style=_STYLES[row.verdict]),
        )
    return table


def _precisions(rows: "Sequence[DiffRow]") -> str:
    """Of most rows, then of the others."""
    each = [f"{row.precision} in A, {row.b_precision} in B" for row in rows]
    words = [row.precision if row.precision == row.b_precision else word for row, word in zip(rows, each, strict=True)]
    usual = max(words, key=words.count)
    rest = [f"{row.runtime} {row.mode} {word}" for row, word in zip(rows, words, strict=True) if word != usual]
    return "; ".join([f"precision: {usual}", *rest])


def _sum(report: "DiffReport") -> RenderableType:
    counts = {word: sum(row.verdict == word for row in report.rows) for word in _STYLES}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    text = f"{told}; slower and faster: by more than {report.threshold * 100:.3g}% and the noise"
    return Text(text, style="" if report.passed else "bold red")


def _listed(what: str, lines: Iterable[str], most: int = _MOST_LINES) -> Iterator[RenderableType]:
    found = list(lines)
    yield from (note(f"{what}: {line}") for line in found[:most])
    if len(found) > most:
        yield note(f"{what}: {len(found) - most} more")


def _name(row: "RowName") -> str:
    return f"{row.runtime} {row.mode} of {_group(row)}"


def _group(row: "RowName") -> str:
    scenario = "" if row.scenario == "single-stream" else f", {row.scenario} {row.concurrency}"
    unusual = f", {row.unusual}" if row.unusual else ""
    return f"{row.artifact}, threads: {row.threads}, batch: {row.batch}{scenario}{unusual}"


def _percent(ratio: float, most: float = 10.0) -> str:
    """A change in percent, without its sign; a digit after the point below ``most``."""
    text = f"{100 * (ratio - 1):+.1f}"
    return text if abs(float(text)) < most else f"{100 * (ratio - 1):+.0f}"
