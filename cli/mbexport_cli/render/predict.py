"""What pictures show."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import heading, new_table, note

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.classifier import ClassName
    from mbexport.predict import FailedPicture, PredictionReport


def predicted(artifact: "Artifact", report: "PredictionReport") -> Iterator[RenderableType]:
    """A table for each picture, the runtimes one below the other."""
    yield from heading(artifact)
    yield from which_output(report.output, report.other_outputs)
    yield from _precisions(report)
    for picture in report.pictures:
        yield Text(picture.path, style="cyan")
        table = new_table("runtime", "%", "class", "id", "label", right=("%", "class"))
        for row in picture.rows:
            for place, guess in enumerate(row.top):
                name = "" if place else row.runtime
                table.add_row(name, percent(guess.probability), str(guess.index), guess.id or "-", guess.label or "-")
        yield table
        yield ""
    yield from unreadable(report.failed)


def _precisions(report: "PredictionReport") -> Iterator[RenderableType]:
    """Where it is not float32 everywhere."""
    rows = report.pictures[0].rows
    if any(row.precision != "f32" for row in rows):
        yield note(f"computed in {', '.join(f'{row.precision} on {row.runtime}' for row in rows)}")
        yield ""


def which_output(output: str, others: "Sequence[str]") -> Iterator[RenderableType]:
    """Says which of several classifiers was looked at."""
    if others:
        yield note(f"the network classifies in several outputs; these figures are of {output}, not {', '.join(others)}")
        yield ""


def unreadable(failed: "Sequence[FailedPicture]") -> Iterator[RenderableType]:
    for picture in failed:
        yield Text(f"skipped: {picture.path} {picture.reason}", style="bold red")


def percent(share: float) -> str:
    """A share of 1, without the sign that stands in the column's head."""
    return f"{share * 100:.2f}"


def called(name: "ClassName") -> str:
    """A class as people call it."""
    return name.label or str(name.index)
