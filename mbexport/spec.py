"""What to build: the network (:class:`ModelSpec`) and the form of the exported file (:class:`ExportOptions`)."""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from mbexport.errors import SpecError

Variant = Literal["v2", "large", "small"]
Pooling = Literal["none", "avg", "max"]
Activation = Literal["softmax", "none"]
Layout = Literal["nhwc", "nchw"]

MIN_SIDE_PX = 32
"""Keras refuses smaller pictures for every MobileNet: the network halves the picture five times."""
MIN_ALPHA = 0.01
"""Below 0.0125 every layer is at Keras's floor of 8 channels, so a smaller alpha names no other network."""
MAX_ALPHA = 1e6
"""Far beyond any memory, and low enough that every count of elements stays exact."""
MIN_OPSET, MAX_OPSET = 13, 18
"""tf2onnx 1.17 writes nothing newer than 18; 13 is the oldest opset that its Keras 3 handlers support fully."""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One MobileNet, in the words of Keras's constructors.

    ``height`` and ``width`` are in pixels. ``dropout_rate`` None means Keras's own default (0.2 for V3; V2 has no
    dropout); it changes training only, never the exported graph.

    Raises:
        SpecError: a value that no Keras MobileNet accepts, or a combination that does not exist.
    """

    variant: Variant
    alpha: float = 1.0
    minimalistic: bool = False
    height: int = 224
    width: int = 224
    classes: int = 1000
    include_top: bool = True
    pooling: Pooling = "none"
    classifier_activation: Activation = "softmax"
    dropout_rate: float | None = None

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)
        msgspec.structs.force_setattr(self, "alpha", float(self.alpha))  # 1 and 1.0 are one network
        if self.variant == "v2" and self.minimalistic:
            raise SpecError("minimalistic exists for variant large and small only, not for v2; drop --minimalistic")
        if self.variant == "v2" and self.dropout_rate is not None:
            raise SpecError("MobileNetV2 has no dropout; drop --dropout-rate")
        if self.dropout_rate is not None and not 0 <= self.dropout_rate < 1:
            raise SpecError(f"dropout rate must be at least 0 and below 1, not {self.dropout_rate:g}")
        if min(self.height, self.width) < MIN_SIDE_PX:
            raise SpecError(
                f"resolution must be at least {MIN_SIDE_PX}x{MIN_SIDE_PX} pixels, not {self.height}x{self.width}"
            )
        if self.classes < 1:
            raise SpecError(f"classes must be at least 1, not {self.classes}")
        if self.include_top and self.pooling != "none":
            raise SpecError(f"pooling {self.pooling} applies without the top only; add --no-include-top")
        if not self.include_top and (self.classes, self.classifier_activation) != (1000, "softmax"):
            raise SpecError("--classes and --classifier-activation belong to the top; drop them with --no-include-top")

    @property
    def is_v3(self) -> bool:
        return self.variant != "v2"

    @property
    def resolution(self) -> str:
        """``224``, or ``192x256`` (height x width) where the sides differ."""
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"

    @property
    def slug(self) -> str:
        """The published naming, such as ``mobilenet_v3_large_minimalistic_1.0_224``."""
        family = "mobilenet_v2" if self.variant == "v2" else f"mobilenet_v3_{self.variant}"
        middle = "_minimalistic" if self.minimalistic else ""
        return f"{family}{middle}_{self.alpha}_{self.resolution}{'' if self.include_top else '_notop'}"


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of the exported file. ``batch`` None means a dynamic batch.

    Raises:
        SpecError: a batch or an opset that cannot be exported.
    """

    layout: Layout = "nhwc"
    batch: int | None = None
    opset: int = 17

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise SpecError(f"batch must be 'dynamic' or at least 1, not {self.batch}")
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise SpecError(f"opset must lie between {MIN_OPSET} and {MAX_OPSET}, not {self.opset}")


def parse_resolution(text: str) -> tuple[int, int]:
    """``224`` -> (224, 224); ``192x256`` -> (192, 256), height x width in pixels.

    Raises:
        SpecError: anything else.
    """
    match = re.fullmatch(r"(-?\d{1,9})(?:x(-?\d{1,9}))?", text.strip(), flags=re.ASCII)
    if match is None:
        raise SpecError(f"resolution must look like 224 or 192x256 (height x width), not {text!r}")
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
