"""``mbexport pipeline check``, ``plan`` and ``run``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Json, Verbose

if TYPE_CHECKING:
    from mbexport.pipelines.file import Pipeline
    from mbexport.pipelines.run import Place

CHECK_EPILOG = "Example: mbexport pipeline check mbexport.toml"
PLAN_EPILOG = "Example: mbexport pipeline plan mbexport.toml"
RUN_EPILOG = "Example: mbexport pipeline run mbexport.toml"
File = Annotated[Path, typer.Argument(help="The pipeline file.", metavar="FILE")]
DEFAULT = Path("mbexport.toml")


def check(file: File = DEFAULT, *, json: Json = False, verbose: Verbose = False) -> None:
    """Check a pipeline file: every fault is told, with line and column; exit 2 then."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.pipelines.file import read_pipeline

        pipeline = read_pipeline(file)
        names = [wanted.cell.name for wanted in pipeline.cells]
        outputs = [str(output.path) for output in pipeline.outputs]
        own.result({"pipeline": str(file), "cells": names, "outputs": outputs}, render.checked(pipeline), json=json)


def plan(file: File = DEFAULT, *, json: Json = False, verbose: Verbose = False) -> None:
    """Say what `pipeline run` would do, and what of it is done already; nothing is built."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.pipelines.file import read_pipeline
        from mbexport.pipelines.plan import plan_pipeline

        pipeline = read_pipeline(file)
        found = plan_pipeline(pipeline, _place(pipeline))
        own.result(found, render.planned(found), json=json)


def run(
    file: File = DEFAULT,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="A Dask scheduler, whose workers build and measure instead of this machine.", metavar="tcp://HOST:PORT"
        ),
    ] = None,
    hardware: Annotated[
        list[str] | None,
        typer.Option(help="With --scheduler: measure on the worker with this resource; repeatable.", metavar="SLUG"),
    ] = None,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Build, check, measure and judge every cell of a pipeline file; make its outputs, and publish them if all is good.

    Stopped in the middle, the same command goes on where it was. Exit 1 where a cell, a gate or an output failed; the
    others are done. The reports are OUT/pipeline.json, OUT/pipeline.md and OUT/junit.xml.
    """
    if hardware and scheduler is None:
        raise InputError("--hardware goes with --scheduler; without one, this machine is measured")
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.pipelines.file import read_pipeline
        from mbexport.pipelines.reports import write_reports
        from mbexport.pipelines.run import run_pipeline
        from mbexport.sweep.crew import crew_at

        pipeline = read_pipeline(file)
        place = _place(pipeline, scheduler)
        with (
            crew_at(scheduler, hardware) as crew,
            own.sweeping([wanted.cell.name for wanted in pipeline.cells]) as (observe, progress),
        ):
            report = run_pipeline(pipeline, place, observe=observe, progress=progress, crew=crew)
        written = write_reports(report, pipeline.out)
        own.result(report, render.piped(report, written), json=json)
    if not report.passed:
        raise typer.Exit(1)


def _place(pipeline: "Pipeline", scheduler: str | None = None) -> "Place":
    from mbexport.bench.plan import choose_threads
    from mbexport.cache import cache_root
    from mbexport.hardware import usable_threads
    from mbexport.pipelines.run import place_of

    threads = choose_threads(None if scheduler else pipeline.threads, usable_threads())
    return place_of(pipeline, cache_root(), threads, scheduler)
