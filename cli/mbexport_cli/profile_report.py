"""``mbexport profile report``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, Profiles, Verbose

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
    profiles: Profiles = Path("profiles"),
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
        from mbexport.profiles import shipped_profiles_dir

        shipped = shipped_profiles_dir()
        written = write_report(out, choose([profiles, shipped], names or (), hardware), shipped)
        own.result(written, render.reported(written), json=json)
