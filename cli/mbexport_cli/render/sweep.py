"""A sweep while it runs, and what came of it."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mbexport.sweep.summary import margin_text
from mbexport_cli.render.parts import milliseconds, new_table, note, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.sweep.run import CellResult, SweepReport


class LiveCells:
    """What is known of each cell so far, drawn anew whenever there is more."""

    def __init__(self, names: Iterable[str]) -> None:
        self._results: dict[str, CellResult | None] = dict.fromkeys(names)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task("build", total=1.0)

    def observe(self, result: "CellResult") -> None:
        self._results[result.name] = result

    def progress(self, message: str, share: float | None) -> None:
        self._progress.update(self._task, description=message, completed=share or 0.0)

    def __rich__(self) -> RenderableType:
        table = new_table("cell", "state", "built s", right=("built s",))
        for name, result in self._results.items():
            built = "" if result is None or result.build_s is None else f"{result.build_s:.1f}"
            table.add_row(name, "" if result is None else _state(result), built)
        return Group(table, self._progress)


@contextlib.contextmanager
def live_cells(names: Iterable[str], stream: TextIO) -> Iterator[LiveCells]:
    """A table that vanishes at the end."""
    shown = LiveCells(names)
    console = Console(file=stream, highlight=False, markup=False)
    with Live(shown, console=console, transient=True, redirect_stdout=False, redirect_stderr=False):
        yield shown


def swept(report: "SweepReport", summary: "Path") -> Iterator[RenderableType]:
    table = new_table("cell", "result", "margin dB", "built s", right=("margin dB", "built s"))
    for result in report.cells:
        built = "cached" if result.cached else "" if result.build_s is None else f"{result.build_s:.1f}"
        word = verdict("passed" if result.passed else "FAILED")
        table.add_row(result.name, word, margin_text(result), built)
    yield table
    yield ""
    if any(result.rows for result in report.cells):
        yield _latencies(report)
        yield ""
    for result in report.cells:
        for text in (*result.notes, *filter(None, [result.error])):
            yield note(f"{result.name}: {text}")
    yield f"summary: {summary}"


def _latencies(report: "SweepReport") -> RenderableType:
    table = new_table("latency", "runtime", "precision", "p50 ms", "verdict", right=("p50 ms",))
    for result in report.cells:
        for row in result.rows:
            kind = f"{row.mode} {row.precision}"
            table.add_row(result.name, row.runtime, kind, milliseconds(row.p50_s), verdict(row.verdict))
    return table


def _state(result: "CellResult") -> str:
    if result.error:
        return "failed"
    return "measured" if result.rows else "cached" if result.cached else "built"
