"""``mbexport validate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Artifact, Json, RuntimeOptions, Verbose

EPILOG = "Example: mbexport validate artifacts/mobilenet_v3_small_1.0_224 --explain"
_CHECKS, _REPORT = "Checks", "Report"


@dataclass(frozen=True)
class CheckOptions:
    """What is asked beyond the artifact's own limits."""

    images: Annotated[
        Path | None, typer.Option(help="Try pictures of this folder too.", metavar="DIR", rich_help_panel=_CHECKS)
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(
            help="At most so many of them, spread evenly. (default: 16)", metavar="N", rich_help_panel=_CHECKS
        ),
    ] = None
    min_sqnr: Annotated[
        float | None,
        typer.Option(help="Least SQNR in dB. (default: derived)", metavar="DB", rich_help_panel=_CHECKS),
    ] = None
    max_flips: Annotated[
        int | None,
        typer.Option(help="Most predictions that may differ from Keras's.", metavar="N", rich_help_panel=_CHECKS),
    ] = None
    allow_fallback: Annotated[
        bool,
        typer.Option(
            "--allow-fallback", help="Let nodes run on another device than asked for.", rich_help_panel=_CHECKS
        ),
    ] = False

    def __post_init__(self) -> None:
        import math

        if self.limit is not None and self.images is None:
            raise InputError(f"--limit {self.limit} limits the pictures of --images DIR, which is not given")
        if self.min_sqnr is not None and not math.isfinite(self.min_sqnr):
            raise InputError(f"min-sqnr must be a number of decibels, not {self.min_sqnr}")
        if self.max_flips is not None and self.max_flips < 0:
            raise InputError(f"max-flips must be at least 0, not {self.max_flips}")

    @property
    def most_images(self) -> int:
        return 16 if self.limit is None else self.limit


@dataclass(frozen=True)
class ReportOptions:
    """What is told of it."""

    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Find the first wrong node of each failed row, and the error of every layer.",
            rich_help_panel=_REPORT,
        ),
    ] = False
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw the error of every layer into this .svg; explains too.", metavar="FILE", rich_help_panel=_REPORT
        ),
    ] = None
    save_outputs: Annotated[
        Path | None,
        typer.Option(
            help="Keep every answer in this .npz, for `mbexport compare`.", metavar="F", rich_help_panel=_REPORT
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.picture is not None and self.picture.suffix.lower() != ".svg":
            raise InputError(f"--picture {self.picture} must end in .svg")


def main(
    artifact: Artifact,
    where: RuntimeOptions,
    asked: CheckOptions,
    told: ReportOptions,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run an artifact on each runtime and compare with Keras's stored answers; exit 1 if one fails.

    Twice: parity pins float32, production leaves the engine its defaults. Limits
    come from the noise of the precision computed in; the report says from which.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import validate
        from mbexport.accuracy.recording import Recording
        from mbexport.bench.plan import choose_threads
        from mbexport.bundle.opened import open_artifact
        from mbexport.folders import some_pictures
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets
        from mbexport.serde import refuse_unwritable, write_atomic

        if told.picture is not None:
            refuse_unwritable(told.picture.parent)
        checks = validate.Checks(
            images=some_pictures(asked.images, asked.most_images) if asked.images else (),
            min_sqnr_db=asked.min_sqnr,
            max_flips=asked.max_flips,
            allow_fallback=asked.allow_fallback,
        )
        opened = open_artifact(artifact)
        if told.explain or told.picture:
            validate.check_explainable(opened)
        recording = Recording(opened, told.save_outputs) if told.save_outputs else None
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = validate.validate(
                opened,
                targets,
                checks,
                threads=threads,
                progress=lambda what: progress(f"validate {what}"),
                observe=recording.observe if recording else None,
            )
            if told.explain or told.picture:
                report = validate.explained(
                    opened, report, threads=threads, progress=lambda what: progress(f"explain {what}")
                )
        if recording is not None:
            recording.write(report)
        if told.picture is not None:
            write_atomic(told.picture, render.layers_svg(opened.manifest.slug, report.explanations).encode())
        own.result(report, render.validated(opened, report), json=json)
    if not report.passed:
        raise typer.Exit(1)
