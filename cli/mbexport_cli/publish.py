"""``mbexport publish``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, Verbose

EPILOG = "Example: mbexport publish small.zip s3://models/mobilenet/small.zip"


def main(
    source: Annotated[Path, typer.Argument(help="A bundle, an artifact folder, or a layout's.", metavar="F")],
    url: Annotated[
        str,
        typer.Argument(
            help="Its place: file:, s3:, gcs: and what else fsspec knows. A slash at the end adds F's name."
        ),
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace another content.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Copy a bundle, an artifact or a layout to a URL, so that nobody ever reads a part of it.

    What stands there already is left as it is; exit 2 where it is another content, unless --force is given. validate,
    bench, evaluate, predict, verify and rebuild read from such URLs.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.publish import publish

        found = publish(source, url, force=force)
        own.result(found, render.published(found), json=json)
