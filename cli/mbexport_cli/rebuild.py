"""``mbexport rebuild``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import AllowUnsafe, InputRange, Json, Verbose, bounds

EPILOG = "Example: mbexport rebuild small.zip -o small-again.zip"


def main(
    bundle: Annotated[Path, typer.Argument(help="A file that `mbexport bundle` made, or its URL.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.", metavar="FILE")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="The file that the weights came from, where they are not random; or the user's own model.",
            metavar="FILE",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with the pictures that calibrated an int8 or f16 artifact.", metavar="DIR"),
    ] = None,
    input_range: InputRange = None,
    *,
    allow_unsafe: AllowUnsafe = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a bundle again from its own manifest, and compare; exit 1 where something differs.

    Graphs, input contract and labels must come out to the byte, Keras's answers within the noise of their arithmetic.
    Validation and latencies are carried over: they were found on other machines. The new file is not signed.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.bundle.rebuild import Given, rebuild
        from mbexport.remote import local

        with own.progress() as progress:
            given = Given(weights, images, bounds(input_range), allow_unsafe=allow_unsafe)
            report = rebuild(local(bundle), out, given, progress=progress)
        own.result(report, render.rebuilt(report), json=json)
    if not report.passed:
        raise typer.Exit(1)
