"""``mbexport profile show``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, Profiles, Verbose

EPILOG = "Example: mbexport profile show mobilenet_v3_small_1.0_224"


def show(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Artifacts or machines, or a part of their names. (default: all)", metavar="NAME"),
    ] = None,
    profiles: Profiles = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show measured profiles: those of --profiles and those that travel with mbexport."""
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.errors import InputError
        from mbexport.profiles import list_profiles, shipped_profiles_dir

        shipped = shipped_profiles_dir()
        found = list_profiles([profiles, shipped])
        for name in names or []:
            if not any(name in key for profile in found.values() for key in (profile.artifact, profile.hardware.slug)):
                raise InputError(f"no profile of {name} in {profiles} or shipped; see: mbexport profile show")
        chosen = {
            path: profile
            for path, profile in found.items()
            if not names or any(name in key for name in names for key in (profile.artifact, profile.hardware.slug))
        }
        own.result(documents.profiles(chosen, shipped), render.profiles(chosen, shipped), json=json)
