"""``mbexport bench``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mbexport.errors import InputError
from mbexport_cli.options import Json, Profiles, Verbose, choice

if TYPE_CHECKING:
    from mbexport.bench import Settings
    from mbexport.bench.budget import BudgetPlan

EPILOG = "Example: mbexport bench artifacts/mobilenet_v3_small_1.0_224 --budget 1m"
_CELLS, _HOW = "What is measured", "How"


@dataclass(frozen=True)
class Cells:
    """What is varied; every combination is measured, in turns."""

    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as ort:cpu or openvino:cpu; repeatable. (default: all that are here)",
            metavar="TARGET",
            rich_help_panel=_CELLS,
        ),
    ] = None
    threads: Annotated[
        list[int] | None,
        typer.Option(
            help="For every engine alike; repeatable. (default: this machine's cores)",
            metavar="N",
            rich_help_panel=_CELLS,
        ),
    ] = None
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="Pictures per call; repeatable. (default: the artifact's own, else 1)",
            metavar="N",
            rich_help_panel=_CELLS,
        ),
    ] = None
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help="parity pins float32, or what an int8 or f16 file has; production keeps the engine's defaults; "
            "repeatable. (default: both)",
            metavar="parity|production",
            rich_help_panel=_CELLS,
            autocompletion=lambda: ["parity", "production"],
        ),
    ] = None
    concurrency: Annotated[
        int, typer.Option(help="Callers at once, which share the threads.", metavar="N", rich_help_panel=_CELLS)
    ] = 1
    offline: Annotated[
        bool,
        typer.Option("--offline", help="As many callers at once as the engine serves best.", rich_help_panel=_CELLS),
    ] = False
    tuned: Annotated[
        bool,
        typer.Option(
            "--tuned", help="Exactly what `mbexport tune` found here, and nothing else.", rich_help_panel=_CELLS
        ),
    ] = False


@dataclass(frozen=True)
class How:
    """How long, and what besides."""

    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for all rows together, such as 60s or 5m. (default: what p99 needs)",
            metavar="TIME",
            rich_help_panel=_HOW,
        ),
    ] = None
    cold: Annotated[
        bool,
        typer.Option("--cold", help="Also start with what the engine kept of the model before.", rich_help_panel=_HOW),
    ] = False
    ops: Annotated[
        bool,
        typer.Option(
            "--ops", help="Also show where the time goes, from each engine's own profiler.", rich_help_panel=_HOW
        ),
    ] = False
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start anew, whatever a bench that was stopped has left.", rich_help_panel=_HOW),
    ] = False


def main(
    artifacts: Annotated[
        list[Path],
        typer.Argument(help="Artifact folders, as `mbexport build` makes them, or bundles.", metavar="ARTIFACT..."),
    ],
    cells: Cells,
    how: How,
    profiles: Profiles = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure artifacts in fresh processes, and write or extend this machine's profiles of them; exit 1 if an engine
    cannot run one.

    Stopped in the middle, it keeps what is finished, and the same command goes on.
    """
    settings = _settings(cells, how)
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.bench.run import prepare
        from mbexport.bundle.opened import open_artifact
        from mbexport.operators.table import watched
        from mbexport.runtimes import resolve_targets

        opened = [open_artifact(artifact) for artifact in artifacts]
        found, targets = None, []
        if cells.tuned:
            from mbexport.tune.use import tuned_cells

            opened, found = tuned_cells(opened, profiles)
        else:
            targets = resolve_targets(cells.runtime)
        prepared = prepare(opened, targets, settings, profiles=profiles, fresh=how.fresh, cells=found)
        if prepared.plan is not None:
            own.note(_budget_text(prepared.plan))
        if prepared.taken_over is not None:
            own.note(render.taken_over_text(prepared.taken_over))
        with own.progress() as progress:
            report = prepared.run(progress)
            if how.ops:
                tables = watched(opened, targets, settings, progress)
                report = msgspec.structs.replace(report, operators=tables)
        own.result(report, render.benched(opened, report), json=json)
        prepared.forget()
    if report.failed or report.unprepared:
        raise typer.Exit(1)


def _budget_text(plan: "BudgetPlan") -> str:
    """What the budget is to buy, in two lines."""
    rows, whole = plan.rows, plan.rows * plan.processes_per_row
    processes = f"{plan.processes_per_row} processes a row"
    if plan.processes < whole:
        processes = f"{plan.processes} of {whole} processes to run"
    return (
        f"{plan.budget_s:g} s for {rows} row{'' if rows == 1 else 's'}: {processes}, "
        f"each measuring for about {_two_digits(plan.measuring_s)} s\n"
        f"enough for p99 of calls up to about {_two_digits(plan.p99_up_to_s * 1e3)} ms, "
        f"for p90 of calls up to {_two_digits(plan.p90_up_to_s * 1e3)} ms"
    )


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):.10g}"


def _settings(cells: Cells, how: How) -> "Settings":
    from mbexport.bench import Settings, seconds
    from mbexport.quantities import Mode

    chosen = (cells.runtime, cells.threads, cells.batch, cells.mode, cells.concurrency != 1, cells.offline, how.ops)
    if cells.tuned and any(chosen):
        raise InputError("--tuned measures what was tuned; drop every other option on what is measured, and --ops")
    if how.ops and (cells.offline or cells.concurrency != 1):
        raise InputError("--ops watches one call at a time; drop --ops, or --concurrency and --offline")

    modes = [choice("--mode", mode, Mode) for mode in cells.mode or ["parity", "production"]]
    return Settings(
        threads=cells.threads or [None],
        batches=cells.batch or [None],
        modes=modes,
        concurrency=cells.concurrency,
        offline=cells.offline,
        budget_s=None if how.budget is None else seconds(how.budget),
        cold=how.cold,
    )
