"""``mbexport bench``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Artifact, Json, Profiles, RuntimeOptions, Verbose

EPILOG = "Example: mbexport bench artifacts/mobilenet_v3_small_1.0_224 --threads 1"


def main(
    artifact: Artifact,
    where: RuntimeOptions,
    batch: Annotated[
        int | None, typer.Option(help="Pictures per call. (default: the artifact's own, else 1)", metavar="N")
    ] = None,
    profiles: Profiles = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure an artifact in fresh processes, and write or extend this machine's profile of it; exit 1 if an engine
    cannot run it.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import bench
        from mbexport.artifact import read_artifact
        from mbexport.runtimes import resolve_targets

        opened = read_artifact(artifact)
        targets = resolve_targets(where.runtime)
        with own.progress() as progress:
            report = bench.bench(
                opened, targets, threads=where.threads, batch=batch, profiles=profiles, progress=progress
            )
        own.result(report, render.benched(opened, report), json=json)
    if report.failed:
        raise typer.Exit(1)
