"""``mbexport build``."""

from mbexport_cli.options import ExportGroup, Json, SpecOptions, Verbose, WeightsOptions

EPILOG = "Example: mbexport build --variant small --out artifacts"


def main(
    model: SpecOptions, origin: WeightsOptions, form: ExportGroup, *, json: Json = False, verbose: Verbose = False
) -> None:
    """Build a network and export it: a folder with model.onnx, its manifest, and Keras's answers for reference.

    Each graph pass is checked against the step before it, and the whole against Keras in float64.
    """
    spec, export = model.spec(), form.options()
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import pipeline

        with own.progress() as progress:
            result = pipeline.build(
                spec, export=export, weights=origin.weights, seed=origin.seed, out=form.out, progress=progress
            )
        own.result(documents.build(result), render.build(result), json=json)
