"""``mbexport info``."""

from mbexport_cli.network_options import SpecOptions
from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport info --variant small --alpha 0.75"


def main(model: SpecOptions, *, json: Json = False, verbose: Verbose = False) -> None:
    """Show a network's parameters and multiply-accumulates beside what is published of it, and its ImageNet weights;
    without options, the six V3 checkpoints, and which published figure does not hold.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.catalog import PUBLISHED, describe

        if model.given:
            about = describe(model.spec())
            own.result(about, render.info(about), json=json)
            return
        checkpoints = [describe(entry.spec) for entry in PUBLISHED if entry.spec.is_v3]
        own.result(checkpoints, render.checkpoints(checkpoints), json=json)
