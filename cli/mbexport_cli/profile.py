"""``mbexport profile show``."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mbexport_cli.options import Json, Profiles, Verbose
from mbexport_cli.profile_folders import DEFAULT, folders, note_unused

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.profile import LatencyProfile, PublishedProfile

EPILOG = "Example: mbexport profile show mobilenet_v3_small_1.0_224"


def show(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Artifacts or machines, or a part of their names. (default: all)", metavar="NAME"),
    ] = None,
    profiles: Profiles = DEFAULT,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show measured profiles, those of --profiles and those that travel with mbexport, and apart from them what others
    published.
    """
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.errors import InputError
        from mbexport.profiles import list_profiles, list_published

        places = folders(profiles)
        shipped = places[-1]
        measured, published = list_profiles(places), list_published(places)
        for name in names or []:
            if not _measured(measured, [name]) and not _published(published, [name]):
                raise InputError(f"no profile of {name} in {profiles} or shipped; see: mbexport profile show")
        if names:
            measured, published = _measured(measured, names), _published(published, names)
        note_unused(own, profiles, [*measured, *published])
        document = documents.profiles(measured, shipped) | documents.published_profiles(published, shipped)
        own.result(document, render.profiles(measured, published, shipped), json=json)


def _measured(found: "dict[Path, LatencyProfile]", names: list[str]) -> "dict[Path, LatencyProfile]":
    """Those whose artifact or machine has one of the names in its own."""
    return {
        path: profile
        for path, profile in found.items()
        if any(name in key for name in names for key in (profile.artifact, profile.hardware.slug))
    }


def _published(found: "dict[Path, PublishedProfile]", names: list[str]) -> "dict[Path, PublishedProfile]":
    """The rows whose artifact has one of the names in its own; all rows where the device has."""
    chosen = {}
    for path, profile in found.items():
        rows = [row for row in profile.rows if any(name in key for name in names for key in (row.artifact, path.stem))]
        if rows:
            chosen[path] = msgspec.structs.replace(profile, rows=rows)
    return chosen
