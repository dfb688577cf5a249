"""What to build: the network (:class:`ModelSpec`) and the form of the exported file (:class:`ExportOptions`)."""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from mbexport.errors import SpecError

Variant = Literal["v2", "large", "small"]
Pooling = Literal["none", "avg", "max"]
ACTIVATIONS = (
    "softmax", "none", "linear", "relu", "relu6", "leaky_relu", "celu", "elu", "selu", "softplus", "softsign",
    "squareplus", "soft_shrink", "sparse_plus", "silu", "gelu", "glu", "tanh", "tanh_shrink", "sigmoid",
    "exponential", "hard_sigmoid", "hard_silu", "hard_tanh", "hard_shrink", "mish", "log_softmax", "log_sigmoid",
    "sparsemax", "sparse_sigmoid",
)  # fmt: skip
"""What Keras 3 knows by name, but for ``threshold``, which wants two arguments; ``none`` and ``linear`` are one."""
Layout = Literal["nhwc", "nchw"]
Precision = Literal["f32", "f16", "int8"]
"""What a model file's numbers are."""
InputType = Literal["float32", "uint8"]
Preprocess = Literal["outside", "in-graph"]

MIN_SIDE_PX = 32
"""Keras refuses smaller pictures for every MobileNet: the network halves the picture five times."""
SIDE_MULTIPLE_PX = 32
"""At multiples of 32 all five halvings are even: there, and only there, the padding is the same at every size."""
BASE_SIZE_PX = (224, 224)
"""Height and width that a network of dynamic size is built, counted and measured at."""
OTHER_SIZES_PX = ((160, 96), (256, 320))
"""Where a network of dynamic size is checked too: smaller and larger, one upright and one lying, so that height and
width cannot be mixed up, and with even and odd sides in the last feature map."""
SPATIAL_AXES = {"nhwc": (1, 2), "nchw": (2, 3)}
"""Layout -> the axes of height and width."""
MIN_ALPHA = 0.01
"""Below 0.0125 every layer is at Keras's floor of 8 channels, so a smaller alpha names no other network."""
MAX_ALPHA = 1e6
"""Far beyond any memory, and low enough that every count of elements stays exact."""
MIN_OPSET, MAX_NATIVE_OPSET = 13, 18
"""tf2onnx 1.17 writes nothing newer than 18; 13 is the oldest opset that its Keras 3 handlers support fully.

Graphs of newer opsets are converted from 18. How new they may be is the installed ONNX Runtime's affair, so
:func:`mbexport.graph.opset.check_opset` says it when something is built.
"""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One MobileNet, in the words of Keras's constructors.

    ``height`` and ``width`` are in pixels; both None means dynamic: any multiples of :data:`SIDE_MULTIPLE_PX`.
    ``dropout_rate`` None means Keras's own default (0.2 for V3; V2 has no dropout); it changes training only, never the
    exported graph.

    Raises:
        SpecError: a value that no Keras MobileNet accepts, or a combination that does not exist.
    """

    variant: Variant
    alpha: float = 1.0
    minimalistic: bool = False
    height: int | None = 224
    width: int | None = 224
    classes: int = 1000
    include_top: bool = True
    pooling: Pooling = "none"
    classifier_activation: str = "softmax"
    """One of :data:`ACTIVATIONS`."""
    dropout_rate: float | None = None
    include_preprocessing: bool = True
    """V3's Rescaling inside, so that 0..255 goes in; V2 has none. Without it the network expects -1..1."""

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)
        msgspec.structs.force_setattr(self, "alpha", float(self.alpha))  # 1 and 1.0 are one network
        if self.variant == "v2" and self.minimalistic:
            raise SpecError("minimalistic exists for variant large and small only, not for v2; drop --minimalistic")
        if self.variant == "v2" and self.dropout_rate is not None:
            raise SpecError("MobileNetV2 has no dropout; drop --dropout-rate")
        if self.dropout_rate is not None and not 0 <= self.dropout_rate < 1:
            raise SpecError(f"dropout rate must be at least 0 and below 1, not {self.dropout_rate:g}")
        if self.variant == "v2" and not self.include_preprocessing:
            raise SpecError("MobileNetV2 has no preprocessing inside; drop --no-include-preprocessing")
        if self.classifier_activation not in ACTIVATIONS:
            raise SpecError(
                f"unknown classifier activation {self.classifier_activation!r}; known: {', '.join(ACTIVATIONS)}"
            )
        self._check_size()
        if self.classes < 1:
            raise SpecError(f"classes must be at least 1, not {self.classes}")
        if self.include_top and self.pooling != "none":
            raise SpecError(f"pooling {self.pooling} applies without the top only; add --no-include-top")
        if not self.include_top and (self.classes, self.classifier_activation) != (1000, "softmax"):
            raise SpecError("--classes and --classifier-activation belong to the top; drop them with --no-include-top")

    def _check_size(self) -> None:
        if self.height is None and self.width is None:
            if self.variant == "v2" and self.include_top:
                raise SpecError(
                    "MobileNetV2 with its top has no dynamic resolution; add --no-include-top or give --resolution 224"
                )
        elif self.height is None or self.width is None:
            raise SpecError("height and width must both be numbers or both dynamic")
        elif min(self.height, self.width) < MIN_SIDE_PX:
            raise SpecError(
                f"resolution must be at least {MIN_SIDE_PX}x{MIN_SIDE_PX} pixels, not {self.height}x{self.width}"
            )

    @property
    def rescales_inside(self) -> bool:
        """Whether the network itself brings 0..255 to -1..1."""
        return self.is_v3 and self.include_preprocessing

    @property
    def is_v3(self) -> bool:
        return self.variant != "v2"

    @property
    def is_dynamic(self) -> bool:
        """Whether height and width are left open."""
        return self.height is None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels that it is built, counted and measured at: its own, or :data:`BASE_SIZE_PX`."""
        return BASE_SIZE_PX if self.height is None or self.width is None else (self.height, self.width)

    @property
    def reference_sizes(self) -> tuple[tuple[int, int], ...]:
        """The sizes that it is compared with Keras at; the first one is :attr:`size`."""
        return (self.size, *OTHER_SIZES_PX) if self.is_dynamic else (self.size,)

    def at(self, height: int, width: int) -> ModelSpec:
        """The same network for pictures of one size, in pixels."""
        return msgspec.structs.replace(self, height=height, width=width)

    @property
    def resolution(self) -> str:
        """``224``, ``192x256`` (height x width) where the sides differ, or ``dynamic``."""
        if self.is_dynamic:
            return "dynamic"
        return str(self.height) if self.height == self.width else size_text(self.size)

    @property
    def slug(self) -> str:
        """The published naming, such as ``mobilenet_v3_large_minimalistic_1.0_224``."""
        family = "mobilenet_v2" if self.variant == "v2" else f"mobilenet_v3_{self.variant}"
        middle = "_minimalistic" if self.minimalistic else ""
        top = "" if self.include_top else "_notop"
        size = f"{top}_dynamic" if self.is_dynamic else f"_{self.resolution}{top}"
        return f"{family}{middle}_{self.alpha}{size}"


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of the exported file. ``batch`` None means a dynamic batch.

    Raises:
        SpecError: a batch or an opset that cannot be exported by any installation.
    """

    layout: Layout = "nhwc"
    batch: int | None = None
    opset: int = 17
    input_type: InputType = "float32"
    """uint8 takes decoded pictures as they are, with cast and scaling inside."""
    preprocess: Preprocess = "outside"
    """in-graph takes 0..255 and scales inside, which V3 does by itself."""

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise SpecError(f"batch must be 'dynamic' or at least 1, not {self.batch}")
        if self.opset < MIN_OPSET:
            raise SpecError(f"opset must be at least {MIN_OPSET}, not {self.opset}")

    @property
    def rescales_inside(self) -> bool:
        """Whether the file takes 0..255, whatever the network expects."""
        return self.input_type == "uint8" or self.preprocess == "in-graph"


def size_text(size: tuple[int, int]) -> str:
    """(192, 256) -> ``192x256``, height x width."""
    return f"{size[0]}x{size[1]}"


def parse_resolution(text: str) -> tuple[int, int] | tuple[None, None]:
    """``224`` -> (224, 224); ``192x256`` -> (192, 256), height x width in pixels; ``dynamic`` -> (None, None).

    Raises:
        SpecError: anything else.
    """
    if text.strip() == "dynamic":
        return None, None
    match = re.fullmatch(r"(-?\d{1,9})(?:x(-?\d{1,9}))?", text.strip(), flags=re.ASCII)
    if match is None:
        raise SpecError(f"resolution must be 'dynamic' or look like 224 or 192x256 (height x width), not {text!r}")
    height = int(match[1])
    return height, int(match[2]) if match[2] is not None else height


def _check_alpha(alpha: float) -> None:
    if not math.isfinite(alpha) or alpha <= 0:
        raise SpecError(f"alpha must be a finite number above 0, not {alpha:g}; 1.0 is the published width")
    if alpha > MAX_ALPHA:
        raise SpecError(f"alpha must be at most {MAX_ALPHA:g}, not {alpha:g}; 1.0 is the published width")
    if alpha < MIN_ALPHA:
        raise SpecError(
            f"alpha must be at least {MIN_ALPHA}, not {alpha:g}: below it every layer is at Keras's floor of 8 channels"
        )
