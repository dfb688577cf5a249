"""``mbexport profile diff``."""

import math
from pathlib import Path
from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport.thresholds import DIFF_ABOVE_SHARE
from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport profile diff before/profiles profiles --fail-above 5%"


def main(
    a: Annotated[
        Path,
        typer.Argument(help="A profile, a machine's folder, or a folder of profiles of one machine.", metavar="A"),
    ],
    b: Annotated[Path, typer.Argument(help="What is held to A.", metavar="B")],
    fail_above: Annotated[
        str | None,
        typer.Option(
            help="Exit 1 if a row is slower by more than this and than the noise, such as 5% or 0.05."
            f" (default: never, and {DIFF_ABOVE_SHARE:.0%} tells slower from same)",
            metavar="SHARE",
        ),
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(
            help="In what A and B may differ, since that is the question: hardware, runtime, runtime-version,"
            " artifact, inputs, mode, precision, threads or options; repeatable.",
            metavar="WHAT",
        ),
    ] = None,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare two profiles, or two machines' folders of them, row by row: did this get slower?

    Compares like with like only, and says faster or slower where the change exceeds both the threshold and the noise.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.analysis.alike import subject_of
        from mbexport.analysis.diff import diff

        threshold = DIFF_ABOVE_SHARE if fail_above is None else _share(fail_above)
        report = diff(a, b, across=[subject_of(word) for word in across or []], threshold=threshold)
        own.result(report, render.changes(report), json=json)
    if fail_above is not None and not report.passed:
        raise typer.Exit(1)


def _share(text: str) -> float:
    """``5%`` or ``0.05`` as a fraction of 1.

    Raises:
        InputError: not a number, negative, or without a limit; or 1 and more without a percent sign, which is more
            likely meant in percent.
    """
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf or (share >= 1 and "%" not in text):
        raise InputError(f"--fail-above must be a share such as 5% or 0.05, not {text!r}")
    return share
