"""``mbexport tune``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import ArtifactFolder, Json, Profiles, RuntimeOptions, Verbose, choice

EPILOG = "Example: mbexport tune artifacts/mobilenet_v3_small_1.0_224 --budget 2m"
_MOST_POINTS = 100.0


@dataclass(frozen=True)
class Goal:
    """What is looked for, and for how long."""

    images: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures (a folder a class, or a CSV of path,label) judge by top-1, any other folder's by "
            "agreement with float32. (default: judged by SQNR; int8 and f16 files of trained weights are left out)",
            metavar="DIR|CSV",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points of top-1 that may be lost, where pictures judge. (default: 0.5)", metavar="POINTS"),
    ] = None
    objective: Annotated[
        str,
        typer.Option(
            help="What is to be best: a call's p50 or p99, or pictures per second.",
            metavar="p50|p99|throughput",
            autocompletion=lambda: ["p50", "p99", "throughput"],
        ),
    ] = "p50"
    budget: Annotated[str, typer.Option(help="Time for everything together.", metavar="TIME")] = "5m"

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop <= _MOST_POINTS:
            raise InputError(f"--max-drop must be 0 to 100 points, not {self.max_drop:g}")


def main(
    artifact: ArtifactFolder,
    where: RuntimeOptions,
    goal: Goal,
    profiles: Profiles = Path("profiles"),
    *,
    require_go: Annotated[
        bool, typer.Option("--require-go", help="Exit 1 where nothing is faster than float32.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find the fastest configuration on this machine that stays inside an accuracy limit: engine, precision, model
    file, threads, callers and engine options.

    The int8 and f16 artifacts that lie beside the float32 one are tried with it. The result and its evidence go into
    this machine's profile, and `mbexport bench --tuned` measures it.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.artifact import read_artifact
        from mbexport.bench import seconds
        from mbexport.runtimes import resolve_targets
        from mbexport.tune.run import TuneSettings, tune
        from mbexport.tuned import Objective

        settings = TuneSettings(
            objective=choice("--objective", goal.objective, Objective),
            max_drop=None if goal.max_drop is None else goal.max_drop / _MOST_POINTS,
            threads=where.threads,
            budget_s=seconds(goal.budget),
        )
        opened = read_artifact(artifact)
        with own.progress() as progress:
            report = tune(
                opened, resolve_targets(where.runtime), settings, images=goal.images, profiles=profiles, tell=progress
            )
        own.result(report, render.tuned(opened, report), json=json)
    if require_go and not report.tuned.go:
        raise typer.Exit(1)
