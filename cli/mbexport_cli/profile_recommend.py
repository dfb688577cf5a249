"""``mbexport profile recommend``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.measured_options import MeasuredOptions
from mbexport_cli.options import Json, Verbose, choice

if TYPE_CHECKING:
    from mbexport.analysis.recommend import Question

EPILOG = "Example: mbexport profile recommend --budget-ms 5 --percentile p50 --min-top1 70"


def main(
    budget_ms: Annotated[float, typer.Option(help="Longest time for one call, in milliseconds.", metavar="MS")],
    measured: MeasuredOptions,
    percentile: Annotated[
        str,
        typer.Option(
            help="The percentile of calls that must be within it.",
            metavar="p50|p90|p99",
            autocompletion=lambda: ["p50", "p90", "p99"],
        ),
    ] = "p99",
    min_top1: Annotated[
        float | None,
        typer.Option(
            help="Least top-1, as published for ImageNet or measured, in percent. (default: any)", metavar="PERCENT"
        ),
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `mbexport evaluate ARTIFACT --images DIR --json` printed: its top-1 stands for that artifact in "
            "place of the published one; repeatable.",
            metavar="FILE",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Pictures per call.", metavar="N")] = 1,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Name the most accurate network whose latency fits a budget on one machine, from what was measured there; exit 1
    if none does, with the nearest. Published top-1 are float32's: that of an int8 or f16 file comes from --accuracy.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.analysis.accuracies import read_evaluations
        from mbexport.analysis.recommend import Settings, recommend

        question = _question(budget_ms, percentile, min_top1)
        if batch < 1:
            raise InputError(f"batch must be at least 1, not {batch}")
        settings = Settings(
            runtimes=measured.targets(),
            mode=measured.checked_mode(),
            threads=measured.threads,
            batch=batch,
            precisions=measured.precisions(),
        )
        answer = recommend(measured.machine(own), question, settings, read_evaluations(accuracy or []))
        own.result(answer, render.recommended(answer), json=json)
    if answer.best is None:
        raise typer.Exit(1)


def _question(budget_ms: float, percentile: str, min_top1: float | None) -> "Question":
    from mbexport.analysis.recommend import Percentile, Question

    if min_top1 is not None and 0 < min_top1 < 1:
        raise InputError(f"--min-top1 is in percent: {min_top1 * 100:g}, not {min_top1:g}")
    return Question(
        budget_s=budget_ms / 1e3,
        percentile=choice("--percentile", percentile, Percentile),
        min_top1=None if min_top1 is None else min_top1 / 100,
    )
