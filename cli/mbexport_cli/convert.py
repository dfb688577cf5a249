"""``mbexport convert``: a user's own network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import AllowUnsafe, ExportGroup, InputRange, Json, Strict, VerboseBuild, bounds

EPILOG = "Example: mbexport convert flowers.keras --labels flowers.txt"


@dataclass(frozen=True)
class ReadingOptions:
    """How the file is read. None means not given."""

    name: Annotated[
        str | None, typer.Option(help="Of the artifact. (default: the file's)", metavar="NAME", rich_help_panel="Model")
    ] = None
    resolution: Annotated[
        str | None,
        typer.Option(
            help="Pixels, 224 or 192x256 (height x width), where the model leaves them open.",
            metavar="HxW",
            rich_help_panel="Model",
        ),
    ] = None
    input_range: InputRange = None
    allow_unsafe: AllowUnsafe = False


def main(
    model: Annotated[
        Path,
        typer.Argument(help="A whole model: a .keras or .h5 file, or a SavedModel folder.", metavar="MODEL"),
    ],
    reading: ReadingOptions,
    form: ExportGroup,
    *,
    strict: Strict = False,
    json: Json = False,
    verbose: VerboseBuild = False,
) -> None:
    """Convert your own network, saved by Keras, to the same kind of artifact as `build` makes.

    A MobileNet with any usual head, frozen or not; each graph pass is checked against the step before it, and the whole
    against the framework in float64. Other image networks may convert too, outside the tested grid.
    """
    export, size, expected = form.options(), _size(reading.resolution), bounds(reading.input_range)
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import pipeline

        with own.progress() as progress:
            result = pipeline.convert(
                model,
                name=reading.name,
                size=size,
                input_range=expected,
                allow_unsafe=reading.allow_unsafe,
                export=export,
                out=form.out,
                strict=strict,
                labels=form.labels,
                golden=form.golden,
                progress=progress,
                observe=own.passes(),
            )
        own.result(documents.build(result), render.build(result), json=json)


def _size(resolution: str | None) -> tuple[int, int] | None:
    from mbexport.spec import parse_resolution

    if resolution is None:
        return None
    height, width = parse_resolution(resolution)
    if height is None or width is None:
        raise InputError("convert makes a file of one size: give --resolution 224 or 192x256, not dynamic")
    if min(height, width) < 1:
        raise InputError(f"resolution must be at least 1x1 pixels, not {height}x{width}")
    return height, width
