"""``mbexport compare``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport compare laptop.npz board.npz"


def main(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Files of `mbexport validate --save-outputs`; the others are held to the first.", metavar="F"
        ),
    ],
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare answers that were saved on several machines; exit 1 if a row fails.

    Each row is held to the truth and limit in its own file, and to the first row of the first file.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.compare_saved import compare_saved

        report = compare_saved(files)
        own.result(report, render.compared(report), json=json)
    if not report.passed:
        raise typer.Exit(1)
