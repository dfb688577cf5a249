"""The options that several commands share, as groups; ``command`` spreads them into a command's own."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mbexport.errors import InputError, SpecError

if TYPE_CHECKING:
    from mbexport.spec import ExportOptions

_EXPORT, _RUN = "Export", "Runtimes"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Let the engines' own messages and tracebacks through, on stderr.")
]
VerboseBuild = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Show what each graph pass did, and let the engines' own messages and tracebacks through, on stderr.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit 1 and write nothing where a graph pass had to be rolled back.",
        rich_help_panel=_EXPORT,
    ),
]
Artifact = Annotated[
    Path,
    typer.Argument(
        help="An artifact folder, as `mbexport build` makes it, or a bundle (FILE/NAME: one artifact of it); or a URL.",
        metavar="ARTIFACT",
    ),
]
ArtifactFolder = Annotated[
    Path, typer.Argument(help="An artifact folder, as `mbexport build` makes it.", metavar="ARTIFACT")
]
InputRange = Annotated[
    str | None,
    typer.Option(
        help="What the model expects 0..255 to be brought to: 0,255 or -1,1 or 0,1. (default: read off its graph)",
        metavar="LOW,HIGH",
        rich_help_panel="Model",
    ),
]
AllowUnsafe = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe",
        help="Run the code that a file brings: Lambda layers, functions by name. For sources that you trust.",
        rich_help_panel="Model",
    ),
]
Profiles = Annotated[Path, typer.Option(help="Folder of measured profiles, made when needed.", metavar="DIR")]


@dataclass(frozen=True)
class ExportGroup:
    """The form of the exported file."""

    layout: Annotated[
        str,
        typer.Option(
            help="Layout of pictures and feature maps.",
            metavar="nhwc|nchw",
            rich_help_panel=_EXPORT,
            autocompletion=lambda: ["nhwc", "nchw"],
        ),
    ] = "nhwc"
    input_type: Annotated[
        str,
        typer.Option(
            help="uint8 takes decoded pictures as they are: cast and scaling go inside.",
            metavar="float32|uint8",
            rich_help_panel=_EXPORT,
            autocompletion=lambda: ["float32", "uint8"],
        ),
    ] = "float32"
    preprocess: Annotated[
        str,
        typer.Option(
            help="in-graph takes 0..255 and scales inside, as V3 does anyway.",
            metavar="outside|in-graph",
            rich_help_panel=_EXPORT,
            autocompletion=lambda: ["outside", "in-graph"],
        ),
    ] = "outside"
    batch: Annotated[str, typer.Option(help="Pictures per call.", metavar="N|dynamic", rich_help_panel=_EXPORT)] = (
        "dynamic"
    )
    opset: Annotated[
        int | None,
        typer.Option(
            help="ONNX opset, from 13 to the newest that the installed onnxruntime loads. (default: 17)",
            metavar="N",
            rich_help_panel=_EXPORT,
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Class labels: one name a line, or JSON. (default: ImageNet's for 1000 classes)",
            metavar="FILE",
            rich_help_panel=_EXPORT,
        ),
    ] = None
    golden: Annotated[
        Path | None,
        typer.Option(
            help="Up to three pictures of this folder travel in the artifact, with the top 5 expected for them.",
            metavar="DIR",
            rich_help_panel=_EXPORT,
        ),
    ] = None
    out: Annotated[
        Path,
        typer.Option(help="Folder in which the artifact's folder is made.", metavar="DIR", rich_help_panel=_EXPORT),
    ] = Path("artifacts")

    def options(self) -> "ExportOptions":
        """The same, checked.

        Raises:
            SpecError: a layout, batch or opset that cannot be exported.
        """
        from mbexport.spec import ExportOptions, InputType, Layout, Preprocess

        return ExportOptions(
            layout=choice("--layout", self.layout, Layout),
            batch=_batch(self.batch),
            input_type=choice("--input-type", self.input_type, InputType),
            preprocess=choice("--preprocess", self.preprocess, Preprocess),
            **({} if self.opset is None else {"opset": self.opset}),
        )


@dataclass(frozen=True)
class RuntimeOptions:
    """Where it runs."""

    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as ort:cpu or openvino:cpu; repeatable. (default: all that are here)",
            metavar="TARGET",
            rich_help_panel=_RUN,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(help="For every engine alike. (default: this machine's cores)", metavar="N", rich_help_panel=_RUN),
    ] = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, not {self.threads}")


def choice(option: str, text: str, kind: Any) -> Any:
    """``text`` where it is one of the words of the Literal ``kind``.

    Raises:
        SpecError: it is not.
    """
    known: tuple[str, ...] = get_args(kind)
    if text in known:
        return text
    near = difflib.get_close_matches(text.lower(), known, 1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SpecError(f"unknown {option} {text!r}; {hint}known: {', '.join(known)}")


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.removeprefix("-").isdecimal():
        raise SpecError(f"batch must be 'dynamic' or a number such as 1, not {text!r}")
    return int(text)


def bounds(input_range: str | None) -> tuple[float, float] | None:
    """``-1,1`` as two numbers."""
    if input_range is None:
        return None
    try:
        low, high = (float(part) for part in input_range.split(","))
    except ValueError:
        raise InputError(f"--input-range must be two numbers such as -1,1, not {input_range!r}") from None
    return low, high
