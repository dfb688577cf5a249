"""``mbexport validate``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Artifact, Json, RuntimeOptions, Verbose

EPILOG = "Example: mbexport validate artifacts/mobilenet_v3_small_1.0_224"
_LIMITS, _PICTURES = "Limits", "Pictures"


def main(
    artifact: Artifact,
    where: RuntimeOptions,
    images: Annotated[
        Path | None, typer.Option(help="Try pictures of this folder too.", metavar="DIR", rich_help_panel=_PICTURES)
    ] = None,
    limit: Annotated[
        int, typer.Option(help="At most so many of them, spread evenly.", metavar="N", rich_help_panel=_PICTURES)
    ] = 16,
    min_sqnr: Annotated[
        float | None,
        typer.Option(help="Least SQNR in dB. (default: derived)", metavar="DB", rich_help_panel=_LIMITS),
    ] = None,
    max_flips: Annotated[
        int | None,
        typer.Option(help="Most predictions that may differ from Keras's.", metavar="N", rich_help_panel=_LIMITS),
    ] = None,
    *,
    allow_fallback: Annotated[
        bool,
        typer.Option(
            "--allow-fallback", help="Let nodes run on another device than asked for.", rich_help_panel=_LIMITS
        ),
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run an artifact on each runtime and compare with Keras's stored answers; exit 1 if one fails.

    Twice: parity pins float32, production leaves the engine its own defaults. The limits are derived from the noise of
    the precision that the engine computes in, and the report says from which.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import validate
        from mbexport.artifact import read_artifact
        from mbexport.bench.plan import choose_threads
        from mbexport.folders import some_pictures
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets

        checks = validate.Checks(
            images=some_pictures(images, limit) if images else (),
            min_sqnr_db=min_sqnr,
            max_flips=max_flips,
            allow_fallback=allow_fallback,
        )
        opened = read_artifact(artifact)
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = validate.validate(
                opened, targets, checks, threads=threads, progress=lambda what: progress(f"validate {what}")
            )
        own.result(report, render.validated(opened, report), json=json)
    if not report.passed:
        raise typer.Exit(1)
