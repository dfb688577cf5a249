"""``mbexport list``."""

from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport list"


def main(*, json: Json = False, verbose: Verbose = False) -> None:
    """List the published networks, by the names that --model takes."""
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.catalog import PUBLISHED

        own.result(documents.catalogue(PUBLISHED), render.catalogue(PUBLISHED), json=json)
