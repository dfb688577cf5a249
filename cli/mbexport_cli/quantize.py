"""``mbexport quantize``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Artifact, Json, RuntimeOptions, Verbose, choice

EPILOG = "Example: mbexport quantize artifacts/mobilenet_v3_small_1.0_224 --images val"
_ALL_POINTS = 100


@dataclass(frozen=True)
class Gate:
    """What counts as a go."""

    max_drop: Annotated[float, typer.Option(help="Points of top-1 that may be lost.", metavar="POINTS")] = 0.5
    require_go: Annotated[bool, typer.Option("--require-go", help="Exit 1 unless every runtime is a go.")] = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= _ALL_POINTS:
            raise InputError(f"--max-drop must be 0 to {_ALL_POINTS} points, not {self.max_drop:g}")


@dataclass(frozen=True)
class Made:
    """What is made, and where."""

    precision: Annotated[
        str,
        typer.Option(help="f16 is for GPUs.", metavar="int8|f16", autocompletion=lambda: ["int8", "f16"]),
    ] = "int8"
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which the new artifact's folder is made. (default: beside ARTIFACT, a folder)",
            metavar="DIR",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.precision.lower() == "bf16":
            raise InputError(
                "--precision bf16 needs no file: bench the float32 artifact on OpenVINO at its defaults "
                "(--mode production)"
            )


def main(
    artifact: Artifact,
    images: Annotated[
        Path,
        typer.Option(
            help="Pictures like those that it will see: one folder a class or a CSV of path,label, to judge by; or any "
            "folder of pictures.",
            metavar="DIR|CSV",
        ),
    ],
    made: Made,
    gate: Gate,
    where: RuntimeOptions,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make an int8 or f16 artifact beside a float32 one, and say for each runtime whether it pays on this machine.

    In int8 weights and activations have 8 bits, calibrated on the pictures, with a model file for each engine where one
    cannot be fast on both. The verdict is go where it is faster than float32 and loses no more than --max-drop.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.bundle.opened import open_artifact
        from mbexport.quantize.kinds import Narrow
        from mbexport.quantize.run import quantize
        from mbexport.remote import url_of
        from mbexport.runtimes import resolve_targets

        if made.out is None and (url_of(artifact) or artifact.is_file() or artifact.parent.is_file()):
            raise InputError(f"nothing can be put beside {url_of(artifact) or artifact}: name a folder with --out")
        opened = open_artifact(artifact)
        targets = resolve_targets(where.runtime)
        with own.progress() as progress:
            report = quantize(
                opened,
                images,
                targets,
                precision=choice("--precision", made.precision, Narrow),
                out=made.out,
                max_drop=gate.max_drop / _ALL_POINTS,
                threads=where.threads,
                progress=lambda message: progress(message, None),
            )
        own.result(report, render.quantized(opened, report), json=json)
    if gate.require_go and not report.go:
        raise typer.Exit(1)
