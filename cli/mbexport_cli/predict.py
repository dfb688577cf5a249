"""``mbexport predict``."""

from typing import Annotated

import typer

from mbexport_cli.options import Artifact, Json, RuntimeOptions, Verbose

EPILOG = "Example: mbexport predict artifacts/mobilenet_v3_small_1.0_224 cat.jpg"


def main(
    artifact: Artifact,
    pictures: Annotated[
        list[str], typer.Argument(help="Files, folders (their own pictures), or patterns.", metavar="PICTURE...")
    ],
    where: RuntimeOptions,
    top: Annotated[int, typer.Option(help="How many classes to show.", metavar="K")] = 5,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what pictures show: the most probable classes on each runtime; exit 1 if a picture cannot be read."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import predict
        from mbexport.bench.plan import choose_threads
        from mbexport.bundle.opened import open_artifact
        from mbexport.folders import named_pictures
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets

        opened = open_artifact(artifact)
        paths = named_pictures(pictures)
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = predict.predict(
                opened,
                paths,
                targets,
                threads=threads,
                top=top,
                progress=lambda done: progress(f"predict {done} of {len(paths)}", done / len(paths)),
            )
        own.result(report, render.predicted(opened, report), json=json)
    if report.failed:
        raise typer.Exit(1)
