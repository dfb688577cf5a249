"""The options that several commands share, as groups; ``command`` spreads them into a command's own."""

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mbexport.errors import InputError, SpecError

if TYPE_CHECKING:
    from mbexport.spec import ExportOptions, ModelSpec

_MODEL, _TOP, _EXPORT, _RUN = "Model", "Top and features", "Export", "Runtimes"
VARIANTS = ("v2", "large", "small")
MAX_SEED = 2**32 - 1
"""Keras and NumPy take seeds of 32 bits."""

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
Artifact = Annotated[Path, typer.Argument(help="An artifact folder, as `mbexport build` makes it.", metavar="ARTIFACT")]
Profiles = Annotated[Path, typer.Option(help="Folder of measured profiles, made when needed.", metavar="DIR")]


@dataclass(frozen=True)
class SpecOptions:
    """Which network, in Keras's words, or by a published name. None means not given."""

    variant: Annotated[
        str | None,
        typer.Option(
            help="MobileNetV2, V3 Large or V3 Small.",
            metavar="v2|large|small",
            rich_help_panel=_MODEL,
            autocompletion=lambda: list(VARIANTS),
        ),
    ] = None
    minimalistic: Annotated[
        bool | None,
        typer.Option("--minimalistic", help="V3 without squeeze-excite and hard-swish.", rich_help_panel=_MODEL),
    ] = None
    alpha: Annotated[
        str | None, typer.Option(help="Width multiplier. (default: 1.0)", metavar="X", rich_help_panel=_MODEL)
    ] = None
    resolution: Annotated[
        str | None,
        typer.Option(
            help="Pixels: 224, 192x256 (height x width), or dynamic (multiples of 32; not for V2 with its top). "
            "(default: 224)",
            metavar="HxW|dynamic",
            rich_help_panel=_MODEL,
            autocompletion=lambda: ["dynamic"],
        ),
    ] = None
    classes: Annotated[
        int | None, typer.Option(help="Classes of the top. (default: 1000)", metavar="N", rich_help_panel=_TOP)
    ] = None
    include_top: Annotated[
        bool | None,
        typer.Option("--include-top/--no-include-top", help="With or without the classifier.", rich_help_panel=_MODEL),
    ] = None
    pooling: Annotated[
        str | None,
        typer.Option(
            help="Of the features, without the top. (default: none)",
            metavar="none|avg|max",
            rich_help_panel=_TOP,
            autocompletion=lambda: ["none", "avg", "max"],
        ),
    ] = None
    classifier_activation: Annotated[
        str | None,
        typer.Option(
            help="Behind the classifier: softmax, none, or any other that Keras knows. (default: softmax)",
            metavar="NAME",
            rich_help_panel=_TOP,
            autocompletion=lambda: ["softmax", "none", "sigmoid"],
        ),
    ] = None
    dropout_rate: Annotated[
        float | None,
        typer.Option(help="V3, of training only. (default: Keras's 0.2)", metavar="X", rich_help_panel=_TOP),
    ] = None
    include_preprocessing: Annotated[
        bool | None,
        typer.Option(
            "--include-preprocessing/--no-include-preprocessing",
            help="V3: take 0..255 and rescale inside, or take -1..1. (default: inside)",
            rich_help_panel=_MODEL,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help="A published name instead of the options above; see `mbexport list`.",
            metavar="NAME",
            rich_help_panel=_MODEL,
        ),
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """The options that the user gave, by field name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def spec(self) -> "ModelSpec":
        """The network that the options describe.

        Raises:
            SpecError: nothing given, a name together with other options, or values that no Keras MobileNet accepts.
        """
        given = self.given
        if self.model is not None:
            return _named(self.model, [name for name in given if name != "model"])
        if self.variant is None:
            raise SpecError("which network? give --variant v2, large or small, or --model NAME (see: mbexport list)")
        return _described(given)


@dataclass(frozen=True)
class WeightsOptions:
    """Where the weights come from."""

    weights: Annotated[
        str,
        typer.Option(
            help="random; imagenet (Keras's download); a Keras file (.weights.h5, .h5, .keras); timm:FILE "
            "(.safetensors, .pth); slim:PREFIX (a TF-slim checkpoint).",
            metavar="SOURCE",
            rich_help_panel=_MODEL,
            autocompletion=lambda: ["random", "imagenet", "timm:", "slim:"],
        ),
    ] = "random"
    seed: Annotated[int, typer.Option(help="Seed of random weights.", metavar="N", rich_help_panel=_MODEL)] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed must lie between 0 and {MAX_SEED}, not {self.seed}")


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
            layout=_choice("--layout", self.layout, Layout),
            batch=_batch(self.batch),
            input_type=_choice("--input-type", self.input_type, InputType),
            preprocess=_choice("--preprocess", self.preprocess, Preprocess),
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


def _named(name: str, others: list[str]) -> "ModelSpec":
    from mbexport.catalog import spec_by_name

    if others:
        flags = ", ".join(f"--{other.replace('_', '-')}" for other in others)
        raise SpecError(f"--model names the whole network, so it cannot stand beside {flags}; drop one or the other")
    return spec_by_name(name)


def _described(given: dict[str, Any]) -> "ModelSpec":
    from mbexport.spec import ModelSpec, Pooling, Variant, parse_resolution

    choices = {"variant": Variant, "pooling": Pooling}
    for name in choices.keys() & given.keys():
        given[name] = _choice(f"--{name.replace('_', '-')}", given[name], choices[name])
    if "alpha" in given:
        given["alpha"] = _alpha(given["alpha"])
    if "resolution" in given:
        given["height"], given["width"] = parse_resolution(given.pop("resolution"))
    return ModelSpec(**given)


def _choice(option: str, text: str, kind: Any) -> Any:
    known: tuple[str, ...] = get_args(kind)
    if text in known:
        return text
    near = difflib.get_close_matches(text.lower(), known, 1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SpecError(f"unknown {option} {text!r}; {hint}known: {', '.join(known)}")


def _alpha(text: str) -> float:
    try:
        return float(text.replace("_", "?"))  # Python would read 1_0 as ten
    except ValueError:
        raise SpecError(f"alpha must be a number such as 0.75, not {text!r}") from None


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.removeprefix("-").isdecimal():
        raise SpecError(f"batch must be 'dynamic' or a number such as 1, not {text!r}")
    return int(text)
