"""``mbexport bundle``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Json, RuntimeOptions, Verbose, choice

EPILOG = "Example: mbexport bundle artifacts/mobilenet_v3_small_1.0_224 -o small.zip"
_LAYOUTS = ["triton", "ovms", "openvino-ir", "plain"]
_LAYOUT = "Serving layouts"


@dataclass(frozen=True)
class LayoutGroup:
    """A folder for a server instead of one file."""

    layout: Annotated[
        str | None,
        typer.Option(
            help="Write a folder for a server or an engine instead of one file: triton, ovms, openvino-ir or plain.",
            metavar="NAME",
            rich_help_panel=_LAYOUT,
            autocompletion=lambda: _LAYOUTS,
        ),
    ] = None
    hardware: Annotated[
        str | None,
        typer.Option(
            help="The machine that will serve: its folder among the profiles, which set threads and batches. "
            "(default: this one, else the only one measured)",
            metavar="SLUG",
            rich_help_panel=_LAYOUT,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.hardware is not None and self.layout is None:
            raise InputError("--hardware goes with --layout; a bundle's file takes the profiles of every machine")


def main(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            help="Artifact folders or bundles: a network, and its int8 or f16 siblings.", metavar="ARTIFACT..."
        ),
    ],
    where: RuntimeOptions,
    serving: LayoutGroup,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file, or the layout's folder.", metavar="FILE")],
    sign: Annotated[
        Path | None,
        typer.Option(help="Sign with this private key (elliptic curve, PEM).", metavar="KEY"),
    ] = None,
    profiles: Annotated[
        Path, typer.Option(help="Folder of measured profiles; those of the artifacts travel along.", metavar="DIR")
    ] = Path("profiles"),
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put artifacts into one file that can be shipped, served, verified and made again.

    The file is a zip with the same bytes for the same content. It holds the artifacts, validated here and now (exit 1,
    and nothing written, where that fails), golden pictures with Keras's answers, the measured profiles, a model card, a
    bill of materials, and infer.py, which runs the network with NumPy, Pillow and a runtime alone.
    """
    if sign is not None and serving.layout is not None:
        raise InputError("--sign signs a bundle's file; a layout is not signed: leave one of both out")
    from mbexport_cli import render
    from mbexport_cli.profile_folders import folders
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.bench.plan import choose_threads
        from mbexport.bundle.layouts.write import Layout, write_layout
        from mbexport.bundle.make import bundle
        from mbexport.bundle.opened import open_artifacts
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets

        wanted = None if serving.layout is None else choice("--layout", serving.layout, Layout)
        opened = [each for artifact in artifacts for each in open_artifacts(artifact)]
        places = folders(profiles)
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        if wanted is None:
            with own.progress() as progress:
                report = bundle(opened, out, targets, profiles=places, key=sign, threads=threads, progress=progress)
            own.result(report, render.bundled(opened[0], report), json=json)
            return
        with own.progress() as progress:
            written = write_layout(
                opened,
                out,
                wanted,
                targets,
                profiles=places,
                machine=serving.hardware,
                threads=threads,
                progress=progress,
            )
        own.result(written, render.laid_out(written), json=json)
