"""``mbexport list``."""

from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport list"


def main(*, json: Json = False, verbose: Verbose = False) -> None:
    """List the published networks by the names that --model takes, with what was published of them, what is computed
    here beside it, and which ImageNet weights exist.
    """
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.catalog import HOLES, PUBLISHED, WITHOUT_FIGURES, describe

        published = [describe(entry.spec) for entry in PUBLISHED]
        others = [describe(spec) for spec in WITHOUT_FIGURES]
        document = documents.catalogue(published, others, HOLES)
        own.result(document, render.catalogue(published, others, HOLES), json=json)
