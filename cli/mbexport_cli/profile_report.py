"""``mbexport profile report``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, Profiles, Verbose
from mbexport_cli.profile_folders import DEFAULT, folders, note_unused

EPILOG = "Example: mbexport profile report -o report.html"


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Artifacts or machines, or a part of their names. (default: all)", metavar="NAME"),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The page to write; folders above it are made.", metavar="FILE")
    ] = Path("report.html"),
    hardware: Annotated[
        str | None,
        typer.Option(
            help="The machine's folder among the profiles. (default: this machine's, else the only one)",
            metavar="SLUG",
        ),
    ] = None,
    profiles: Profiles = DEFAULT,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write one HTML page about a machine's profiles, those of --profiles and those that travel with mbexport; any
    browser shows it, without a network.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.analysis.report import choose, write_report

        places = folders(profiles)
        machine = choose(places, names or (), hardware)
        note_unused(own, profiles, [cell.path for cell in machine.cells])
        written = write_report(out, machine, places[-1])
        own.result(written, render.reported(written), json=json)
