"""``mbexport validate``."""

import typer

from mbexport_cli.options import Artifact, Json, RuntimeOptions, Verbose

EPILOG = "Example: mbexport validate artifacts/mobilenet_v3_small_1.0_224"


def main(artifact: Artifact, where: RuntimeOptions, *, json: Json = False, verbose: Verbose = False) -> None:
    """Run an artifact on each runtime, float32 pinned, and compare with Keras's stored answers; exit 1 if one fails."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import validate
        from mbexport.artifact import read_artifact
        from mbexport.bench.plan import choose_threads
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets

        opened = read_artifact(artifact)
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = validate.validate(
                opened, targets, threads=threads, progress=lambda target: progress(f"validate {target}")
            )
        own.result(report, render.validated(opened, report), json=json)
    if not report.passed:
        raise typer.Exit(1)
