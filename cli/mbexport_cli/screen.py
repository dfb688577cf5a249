"""Where a command's words go: one result on stdout, live progress on stderr where that is a terminal."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mbexport.errors import InputError
from mbexport_cli import signals, streams

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mbexport.graph import PassStep
    from mbexport.sweep.run import CellResult
    from mbexport_cli.progress import Progress


class Screen:
    """Holds the streams as they were before the engines could get at them."""

    def __init__(self, *, verbose: bool) -> None:
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._verbose = verbose

    def result(self, document: Any, rendered: "Iterable[RenderableType]", *, json: bool) -> None:
        """Print the document, or the tables, which are not computed otherwise; neither after Ctrl-C."""
        signals.check()
        try:
            self._print(document, rendered, json=json)
        except BrokenPipeError:
            raise
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())  # what is left must not fail again at exit
            raise InputError(f"cannot write the result to stdout: {error.strerror}") from error

    def _print(self, document: Any, rendered: "Iterable[RenderableType]", *, json: bool) -> None:
        if json:
            from mbexport_cli import documents

            self._stdout.write(documents.text(document))
        else:
            from mbexport_cli import render

            render.write(rendered, self._stdout)
        self._stdout.flush()

    def note(self, text: str) -> None:
        """A line on stderr, which ``--json`` leaves alone."""
        print(text, file=self._stderr)

    def passes(self) -> "Callable[[PassStep], None] | None":
        """Tells on stderr what each graph pass did, with ``-v``."""
        if not self._verbose:
            return None
        from mbexport_cli import render

        return lambda step: self._stderr.writelines(f"{line}\n" for line in render.pass_step(step))

    @contextlib.contextmanager
    def progress(self) -> "Iterator[Progress]":
        """Says what is being done; after Ctrl-C, whatever became of its exception, the next step ends the command."""
        signals.check()
        with self._shown() as show:

            def report(message: str, share: float | None = None, /) -> None:
                signals.check()
                show(message, share)

            yield report

    @contextlib.contextmanager
    def sweeping(self, names: "Iterable[str]") -> "Iterator[tuple[Callable[[CellResult], None], Progress]]":
        """Shows cells as they come, in a table on a terminal; as with :meth:`progress`, Ctrl-C ends the command."""
        from mbexport_cli import render

        signals.check()
        live = self._stderr.isatty() and not self._verbose
        cells = render.live_cells(names, self._stderr) if live else contextlib.nullcontext(render.LiveCells(names))
        with cells as shown:

            def report(message: str, share: float | None = None, /) -> None:
                signals.check()
                shown.progress(message, share)

            yield shown.observe, report

    @contextlib.contextmanager
    def _shown(self) -> "Iterator[Progress]":
        """A live line on a terminal; plain lines with ``-v``, which would tear a live one; nothing in a pipe."""
        if self._verbose:
            yield lambda message, _share=None, /: print(message, file=self._stderr)
        elif not self._stderr.isatty():
            yield lambda _message, _share=None, /: None
        else:
            from mbexport_cli import render

            with render.live(self._stderr) as report:
                yield report


@contextlib.contextmanager
def screen(*, verbose: bool) -> Iterator[Screen]:
    """A screen, with the engines silenced (or with ``verbose`` sent to stderr) as long as it is open."""
    own = Screen(verbose=verbose)
    with streams.engines(verbose=verbose):
        yield own
