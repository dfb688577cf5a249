"""Where rendered things go."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from mbexport_cli.progress import Progress as Report


_UNLIMITED = 10_000
"""Columns of the result console: lines are left to the terminal, so nothing is cut and piped text is whole."""


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to main; rich's own way expects the real stdout in ``sys.stdout``."""
        raise BrokenPipeError


def write(rendered: Iterable[RenderableType], stream: TextIO) -> None:
    """Print to a stream; colours only where it is a terminal."""
    console = _Results(file=stream, width=_UNLIMITED, highlight=False, markup=False, emoji=False)
    for item in rendered:
        console.print(item)


@contextlib.contextmanager
def live(stream: TextIO) -> Iterator["Report"]:
    """A line that says what is being done, with a bar once a share of the whole is known; it vanishes at the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    console = Console(file=stream, highlight=False, markup=False)
    # What Python's print writes is the engines' affair: rich would bring it to the terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("", total=None)

        def report(message: str, share: float | None = None, /) -> None:
            progress.update(task, description=message, total=None if share is None else 1.0, completed=share or 0.0)

        yield report
