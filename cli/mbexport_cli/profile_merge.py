"""``mbexport profile merge``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, Profiles, Verbose

EPILOG = "Example: mbexport profile merge from-the-board/profiles --profiles profiles"


def main(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Profiles, machines' folders of them, or folders that hold machines' folders.", metavar="SOURCE"
        ),
    ],
    profiles: Profiles = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put profiles from elsewhere among those of --profiles, each into its own machine's folder.

    Of rows with the same settings, and of configurations tuned for one objective and accuracy limit, the later one
    stays; on the same day that of the source, or of the source named last. A profile of another model.onnx, or of
    another machine of the same name, is refused. All sources are read and checked before anything is written.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.bench.merge import merge_profiles

        with own.progress() as progress:
            report = merge_profiles(sources, profiles, progress=progress)
        own.result(report, render.merged(report), json=json)
