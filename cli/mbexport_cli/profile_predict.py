"""``mbexport profile predict``."""

from mbexport_cli.measured_options import MeasuredOptions
from mbexport_cli.network_options import SpecOptions
from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport profile predict --variant large --alpha 0.75 --resolution 160"


def main(model: SpecOptions, measured: MeasuredOptions, *, json: Json = False, verbose: Verbose = False) -> None:
    """Predict the median latency of a network that was not measured, from those that were on the same machine, with a
    90% interval that is checked by leaving each of them out.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.analysis.predict import predict_latency

        answer = predict_latency(
            model.spec(),
            measured.machine(own),
            runtimes=measured.targets(),
            mode=measured.checked_mode(),
            threads=measured.threads,
            precisions=measured.precisions(),
        )
        own.result(answer, render.latency_predicted(answer), json=json)
