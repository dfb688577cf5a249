"""The options that say which network, with which weights."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbexport.errors import InputError, SpecError
from mbexport_cli.options import choice

if TYPE_CHECKING:
    from mbexport.spec import ModelSpec

_MODEL, _TOP, _INPUT = "Model", "Top and features", "Input"
VARIANTS = ("v2", "large", "small")
MAX_SEED = 2**32 - 1
"""Keras and NumPy take seeds of 32 bits."""


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
            " /--no-include-preprocessing",
            help="V3 without its Rescaling: takes -1..1, not 0..255.",
            rich_help_panel=_INPUT,
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
        from mbexport.catalog import spec_of

        given = _choices(self.given)
        if self.alpha is not None:
            given["alpha"] = _alpha(self.alpha)
        return spec_of(given, lambda name: f"--{name.replace('_', '-')}")


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


def _choices(given: dict[str, Any]) -> dict[str, Any]:
    """The same, its words checked."""
    from mbexport.spec import Pooling, Variant

    choices = {"variant": Variant, "pooling": Pooling}
    checked = {name: choice(f"--{name}", given[name], choices[name]) for name in choices.keys() & given.keys()}
    return {**given, **checked}


def _alpha(text: str) -> float:
    try:
        return float(text.replace("_", "?"))  # Python would read 1_0 as ten
    except ValueError:
        raise SpecError(f"alpha must be a number such as 0.75, not {text!r}") from None
