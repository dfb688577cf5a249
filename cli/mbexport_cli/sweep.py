"""``mbexport sweep``."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.network_options import SpecOptions, WeightsOptions
from mbexport_cli.options import ExportGroup, Json, Profiles, RuntimeOptions, Verbose, choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mbexport.spec import ModelSpec

EPILOG = "Example: mbexport sweep --variant small,large --alpha 0.75,1.0 --resolution 160,224 --no-bench"
_SWEEP = "Sweep"


@dataclass(frozen=True)
class Extent:
    """What is done with each network."""

    precision: Annotated[
        str,
        typer.Option(
            help="With commas: f32, int8, f16. int8 and f16 need --images.", metavar="P,P", rich_help_panel=_SWEEP
        ),
    ] = "f32"
    images: Annotated[
        Path | None, typer.Option(help="Pictures that calibrate int8 and f16.", metavar="DIR", rich_help_panel=_SWEEP)
    ] = None
    bench: Annotated[
        bool, typer.Option("--bench/--no-bench", help="Measure what passes, one at a time.", rich_help_panel=_SWEEP)
    ] = True
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that build side by side, about 1.5 GB each. (default: one per usable core)",
            metavar="N",
            rich_help_panel=_SWEEP,
        ),
    ] = None

    scheduler: Annotated[
        str | None,
        typer.Option(
            help="A Dask scheduler, whose workers build and measure instead of this machine.",
            metavar="tcp://HOST:PORT",
            rich_help_panel=_SWEEP,
        ),
    ] = None
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            help="With --scheduler: measure on the worker with this resource; repeatable. (default: the only machine "
            "with the resource bench)",
            metavar="SLUG",
            rich_help_panel=_SWEEP,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.hardware and self.scheduler is None:
            raise InputError("--hardware goes with --scheduler; without one, this machine is measured")
        if self.workers is not None and self.scheduler is not None:
            raise InputError("--workers are this machine's processes; a scheduler has its own workers: drop one")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers must be at least 1, not {self.workers}")


def main(
    model: SpecOptions,
    origin: WeightsOptions,
    form: ExportGroup,
    extent: Extent,
    where: RuntimeOptions,
    profiles: Profiles = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Build, check and measure a grid of networks: --variant, --alpha, --resolution, --model and --precision take lists
    with commas.

    Stopped in the middle, the same command goes on where it was: what was built, validated or measured is not done
    again. A cell that fails stops no other; exit 1 then. A summary is written to OUT/sweep.md.
    """
    specs, export = list(_specs(model)), form.options()
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.bench.plan import choose_threads
        from mbexport.bench.settings import Settings as BenchSettings
        from mbexport.cache import cache_root
        from mbexport.hardware import usable_threads
        from mbexport.spec import Precision
        from mbexport.sweep.cells import grid
        from mbexport.sweep.crew import crew_at, targets_for
        from mbexport.sweep.run import Settings, sweep
        from mbexport.sweep.summary import write_summary

        precisions = [choice("--precision", word, Precision) for word in _words(extent.precision)]
        if set(precisions) - {"f32"} and extent.images is None:
            raise InputError(f"--precision {extent.precision} is calibrated on pictures: give a folder with --images")
        if extent.images is not None and set(precisions) == {"f32"}:
            raise InputError("--images calibrates int8 and f16: name one of them with --precision")
        if extent.images is not None and not extent.images.exists():
            raise InputError(f"--images {extent.images} is not there")
        cells = grid(specs, export, origin.weights, origin.seed, precisions)
        # A cluster's workers choose for themselves, and may have more cores than this machine.
        threads = choose_threads(None if extent.scheduler else where.threads, usable_threads())
        measured = where.threads if extent.scheduler else threads
        settings = Settings(
            out=form.out,
            cache=cache_root(),
            targets=targets_for(where.runtime, extent.scheduler),
            workers=min(extent.workers or threads, len(cells)),
            threads=threads,
            images=extent.images,
            labels=form.labels,
            golden=form.golden,
            bench=BenchSettings(threads=[measured]) if extent.bench else None,
            profiles=profiles,
        )
        with (
            crew_at(extent.scheduler, extent.hardware) as crew,
            own.sweeping([cell.name for cell in cells]) as (observe, progress),
        ):
            report = sweep(cells, settings, observe=observe, progress=progress, crew=crew)
        summary = write_summary(report, form.out)
        own.result(report, render.swept(report, summary), json=json)
    if not report.passed:
        raise typer.Exit(1)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _specs(model: SpecOptions) -> "Iterator[ModelSpec]":
    """Each combination of what is given as a list."""
    named = ("variant", "alpha", "resolution", "model")
    lists = [_words(value) if (value := getattr(model, name)) is not None else [None] for name in named]
    for variant, alpha, resolution, name in itertools.product(*lists):
        yield replace(model, variant=variant, alpha=alpha, resolution=resolution, model=name).spec()
