"""Which networks have ImageNet weights in Keras, and which file holds them: the grid and its holes, as tables.

The rules are those of ``keras.applications``' MobileNetV2 and MobileNetV3 (Keras 3); the tests hold them against the
installed Keras. Nothing here opens a file or a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.errors import SpecError

if TYPE_CHECKING:
    from mbexport.spec import ModelSpec

BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
V2_SIDES_PX = (96, 128, 160, 192, 224)
V2_HOLES = frozenset({(1.4, 96)})
"""(alpha, side) inside the grid that was never uploaded: Keras would ask for it and get HTTP 404."""
V3_ALPHAS = (0.75, 1.0)
V3_MINIMALISTIC_ALPHAS = (1.0,)
DEFAULT_SIDE_PX = 224
"""What Keras falls back to: V3 has no others, and V2 without its top takes these at sizes outside its grid."""
CLASSES = 1000


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A weights file that Keras's ``weights="imagenet"`` means."""

    file: str
    url: str
    side_px: int
    """Height and width of the pictures that it was trained on."""


def checkpoint(spec: ModelSpec) -> Checkpoint:
    """The file for a network, with its top or without.

    Raises:
        SpecError: there is none, or Keras refuses it for this network: what Keras documents, and 1.4 at 96.
    """
    if spec.include_top:
        _check_top(spec)
    return _v2(spec) if spec.variant == "v2" else _v3(spec)


def _check_top(spec: ModelSpec) -> None:
    if spec.classes != CLASSES:
        raise SpecError(
            f"the top of the ImageNet weights has {CLASSES} classes, not {spec.classes}; drop --classes, or take the "
            "features with --no-include-top"
        )
    if spec.classifier_activation not in {"softmax", "none", "linear"}:
        raise SpecError(
            f"ImageNet weights with their top go with --classifier-activation softmax or none, "
            f"not {spec.classifier_activation}"
        )


def _v2(spec: ModelSpec) -> Checkpoint:
    _check_alpha("MobileNetV2", spec.alpha, V2_ALPHAS)
    inside = spec.height == spec.width and spec.height in V2_SIDES_PX
    if spec.include_top and not inside:
        raise SpecError(
            f"ImageNet weights of MobileNetV2 with its top exist for the resolutions {_listed(V2_SIDES_PX)}, "
            f"not {spec.resolution}; choose one of these, or add --no-include-top"
        )
    side = spec.size[0] if inside else DEFAULT_SIDE_PX
    if (spec.alpha, side) in V2_HOLES:
        others = [size for size in V2_SIDES_PX if (spec.alpha, size) not in V2_HOLES]
        raise SpecError(
            f"ImageNet weights of MobileNetV2 with alpha {spec.alpha} were never published at {side}; "
            f"choose --resolution {_listed(others)}, or another alpha"
        )
    top = "" if spec.include_top else "_no_top"
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{spec.alpha}_{side}{top}.h5"
    return Checkpoint(file=name, url=f"{BASE_URL}/mobilenet_v2/{name}", side_px=side)


def _v3(spec: ModelSpec) -> Checkpoint:
    family = f"MobileNetV3 {spec.variant.capitalize()}"
    if spec.minimalistic:
        _check_alpha(f"{family} minimalistic", spec.alpha, V3_MINIMALISTIC_ALPHAS)
    else:
        _check_alpha(family, spec.alpha, V3_ALPHAS)
    kind = f"{spec.variant}{'_minimalistic' if spec.minimalistic else ''}"
    top = "" if spec.include_top else "_no_top_v2"
    name = f"weights_mobilenet_v3_{kind}_{DEFAULT_SIDE_PX}_{spec.alpha}_float{top}.h5"
    return Checkpoint(file=name, url=f"{BASE_URL}/mobilenet_v3/{name}", side_px=DEFAULT_SIDE_PX)


def _check_alpha(network: str, alpha: float, known: tuple[float, ...]) -> None:
    if alpha not in known:
        raise SpecError(
            f"ImageNet weights of {network} exist for alpha {_listed(known)}, not {alpha:g}; "
            "choose one of these, or --weights random"
        )


def _listed(values: tuple[float, ...] | list[int]) -> str:
    *first, last = [str(value) for value in values]
    return f"{', '.join(first)} or {last}" if first else last
