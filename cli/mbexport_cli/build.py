"""``mbexport build``."""

from typing import Annotated

import typer

from mbexport_cli.network_options import SpecOptions, WeightsOptions
from mbexport_cli.options import ExportGroup, Json, Strict, VerboseBuild

EPILOG = "Example: mbexport build --variant small --out artifacts"


def main(
    model: SpecOptions,
    origin: WeightsOptions,
    form: ExportGroup,
    *,
    strict: Strict = False,
    verify_reproducible: Annotated[
        bool,
        typer.Option(
            "--verify-reproducible",
            help="Build a second time, in a fresh process under other circumstances; exit 1 where the bytes differ.",
            rich_help_panel="Export",
        ),
    ] = False,
    json: Json = False,
    verbose: VerboseBuild = False,
) -> None:
    """Build a network and export it: a folder with model.onnx, its manifest, and Keras's answers for reference.

    Each graph pass is checked against the step before it, and rolled back where it moves the result; the whole is
    checked against Keras in float64.
    """
    spec, export = model.spec(), form.options()
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import pipeline, reproduce

        with own.progress() as progress:
            result = pipeline.build(
                spec,
                export=export,
                weights=origin.weights,
                seed=origin.seed,
                out=form.out,
                strict=strict,
                labels=form.labels,
                golden=form.golden,
                progress=progress,
                observe=own.passes(),
            )
            again = None
            if verify_reproducible:
                progress("build again in a fresh process")
                again = reproduce.rebuild(result.artifact, origin.weights)
        own.result(documents.build(result, again), render.build(result, again), json=json)
    if again is not None and not again.passed:
        raise typer.Exit(1)
