"""``mbexport bundle``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, RuntimeOptions, Verbose

EPILOG = "Example: mbexport bundle artifacts/mobilenet_v3_small_1.0_224 -o small.zip"


def main(
    artifacts: Annotated[
        list[Path],
        typer.Argument(help="Artifact folders: a network, and its int8 or f16 siblings.", metavar="ARTIFACT..."),
    ],
    where: RuntimeOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.", metavar="FILE")],
    sign: Annotated[
        Path | None,
        typer.Option(help="Sign with this private key (elliptic curve, PEM).", metavar="KEY"),
    ] = None,
    profiles: Annotated[
        Path, typer.Option(help="Folder of measured profiles; those of the artifacts travel along.", metavar="DIR")
    ] = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put artifacts into one file that can be shipped, served, verified and made again.

    The file is a zip with the same bytes for the same content. It holds the artifacts, validated here and now (exit 1,
    and nothing written, where that fails), golden pictures with Keras's answers, the measured profiles, a model card, a
    bill of materials, and infer.py, which runs the network with NumPy, Pillow and a runtime alone.
    """
    from mbexport_cli import render
    from mbexport_cli.profile_folders import folders
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.artifact import read_artifact
        from mbexport.bench.plan import choose_threads
        from mbexport.bundle.make import bundle
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets

        opened = [read_artifact(artifact) for artifact in artifacts]
        places = folders(profiles)
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = bundle(opened, out, targets, profiles=places, key=sign, threads=threads, progress=progress)
        own.result(report, render.bundled(opened[0], report), json=json)
