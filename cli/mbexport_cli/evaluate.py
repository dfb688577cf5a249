"""``mbexport evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Artifact, Json, RuntimeOptions, Verbose, choice

EPILOG = "Example: mbexport evaluate artifacts/mobilenet_v3_small_1.0_224 --images val"


def main(
    artifact: Artifact,
    where: RuntimeOptions,
    images: Annotated[
        Path,
        typer.Option(
            help="A folder with one folder a class, named by the labels' ids or names; or a CSV of path,label.",
            metavar="DIR|CSV",
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(
            help="At most so many pictures, spread evenly over the classes: the first of each class, then the second.",
            metavar="N",
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="parity pins float32, or what an int8 or f16 file has; production keeps the engine's defaults.",
            metavar="parity|production",
            autocompletion=lambda: ["parity", "production"],
        ),
    ] = "parity",
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Count how often the right class is the most probable one, or among the five most probable, on each runtime.

    Every core decodes pictures and runs them. What was computed in less than float32 is compared with float32: an int8
    or f16 artifact with the one that it was made from, if that lies beside it; a float32 one, where the engine's
    defaults make it bf16 or tf32, with itself. Exit 1 if a picture cannot be read.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import evaluate
        from mbexport.bench.plan import choose_threads
        from mbexport.bundle.opened import open_artifact
        from mbexport.hardware import usable_threads
        from mbexport.quantities import Mode
        from mbexport.runtimes import resolve_targets

        checked: Mode = choice("--mode", mode, Mode)
        opened = open_artifact(artifact)
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = evaluate.evaluate(
                opened,
                images,
                targets,
                threads=threads,
                mode=checked,
                limit=limit,
                progress=lambda done, total: progress(f"evaluate {done} of {total}", done / total),
            )
        own.result(report, render.evaluated(opened, report), json=json)
    if report.failed:
        raise typer.Exit(1)
