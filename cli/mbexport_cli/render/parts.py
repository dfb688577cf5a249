"""What several results are made of."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mbexport.manifest import RANDOM_NOTE

if TYPE_CHECKING:
    from mbexport.accuracy.report import FlippedPicture
    from mbexport.artifact import Artifact


_STYLES = {"passed": "green", "ok": "green", "noisy": "yellow", "FAILED": "bold red", "invalid": "bold red"}


def heading(artifact: "Artifact") -> Iterator[RenderableType]:
    """The network's name, and what its weights are good for."""
    yield Text(artifact.manifest.slug, style="bold")
    if artifact.manifest.weights.kind == "random":
        yield note(RANDOM_NOTE)
    yield ""


def new_table(*headers: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", no_wrap=True)
    return table


def reasons(rows: Iterable[tuple[str, str, Sequence[str]]]) -> Iterator[RenderableType]:
    for runtime, mode, reasons in rows:
        for reason in reasons:
            yield note(f"{runtime} {mode}: {reason}")


def note(text: str) -> Text:
    return Text(text, style="yellow")


def verdict(word: str) -> Text:
    return Text(word, style=_STYLES[word])


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "insufficient"
    value = seconds * 1e3
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def decibels(value: float | None, *, exact: bool) -> str:
    if value is not None:
        return f"{value:.1f}"
    return "bit-equal" if exact else "-"


def flipped(flip: "FlippedPicture") -> str:
    """A picture that is another class now."""
    word = "inside the noise" if flip.inside_noise else "more than noise"
    return f"{flip.picture}: class {flip.expected} became {flip.got}, {flip.margin:.2g} apart: {word}"
