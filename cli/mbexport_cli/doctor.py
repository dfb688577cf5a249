"""``mbexport doctor``."""

from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport doctor"


def main(*, json: Json = False, verbose: Verbose = False) -> None:
    """Say which engines, devices and extras are here, what is broken, and the command that mends it; change nothing."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.doctor import diagnose

        with own.progress() as progress:
            diagnosis = diagnose(progress)
        own.result(diagnosis, render.diagnosis(diagnosis), json=json)
