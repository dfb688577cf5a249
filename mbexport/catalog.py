"""The published ImageNet checkpoints: their names, their published figures, and which of those figures hold.

Keras also offers V2 weights of alpha 1.3 and 1.4 at 96 to 192 pixels (1.4 at 96 is missing upstream), but nobody
published figures for them.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import msgspec

from mbexport.architecture import macs, parameters, parameters_without_batch_norm, trainable_parameters
from mbexport.errors import SpecError
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

V3_SOURCE = "Keras, docstring of MobileNetV3Large and MobileNetV3Small"
V2_SOURCE = "TF-slim's table of MobileNetV2 checkpoints, as in the docstring of Keras 2's mobilenet_v2"
TIMM_SOURCE = "timm, results/results-imagenet.csv"


class TimmPublished(msgspec.Struct, frozen=True, kw_only=True):
    """timm's copy of a checkpoint. ``top1`` and ``top5`` are shares of ImageNet's validation set, fractions of 1."""

    name: str
    source: str
    parameters_millions: float
    """Batch norm's moving statistics left out."""
    top1: float
    top5: float


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint's figures as published. ``top1`` and ``top5`` are fractions of 1."""

    name: str
    """The name in Keras's documentation, which is also the spec's slug."""
    source: str
    spec: ModelSpec
    macs_millions: int
    parameters_millions: float
    """Batch norm left out: so counted, all of V2's figures are exact."""
    parameters_decimals: int
    """How many digits behind the point were published."""
    top1: float
    top5: float | None = None
    pixel1_s: float | None = None
    """Latency on the CPU of a Pixel 1 phone, in seconds."""
    timm: TimmPublished | None = None


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """One spec: computed figures, published ones, and a sentence for each published figure that does not hold."""

    spec: ModelSpec
    parameters: int
    """As Keras's ``count_params()``."""
    trainable_parameters: int
    parameters_without_batch_norm: int
    macs: int
    macs_at: tuple[int, int]
    """Height and width in pixels that they are counted at: the spec's own, 224x224 where these are dynamic."""
    published: Published | None
    disagreements: list[str]


# variant, minimalistic, alpha; MACs and parameters in millions; top-1 %; Pixel 1 ms;
# timm's name, parameters in millions, top-1 % and top-5 %
_V3 = (
    ("large", False, 1.0, 217, 5.4, 75.6, 51.2, "tf_mobilenetv3_large_100", 5.48, 75.516, 92.594),
    ("large", False, 0.75, 155, 4.0, 73.3, 39.8, "tf_mobilenetv3_large_075", 3.99, 73.432, 91.352),
    ("large", True, 1.0, 209, 3.9, 72.3, 44.1, "tf_mobilenetv3_large_minimal_100", 3.92, 72.258, 90.638),
    ("small", False, 1.0, 66, 2.9, 68.1, 15.8, "tf_mobilenetv3_small_100", 2.54, 67.918, 87.674),
    ("small", False, 0.75, 44, 2.4, 65.4, 12.8, "tf_mobilenetv3_small_075", 2.04, 65.728, 86.126),
    ("small", True, 1.0, 65, 2.0, 61.9, 12.2, "tf_mobilenetv3_small_minimal_100", 2.04, 62.890, 84.240),
)
# alpha, parameters in millions; (side in pixels, MACs in millions, top-1 %, top-5 %)
_V2 = (
    (1.4, 6.06, ((224, 582, 75.0, 92.5),)),
    (1.3, 5.34, ((224, 509, 74.4, 92.1),)),
    (
        1.0,
        3.47,
        (
            (224, 300, 71.8, 91.0),
            (192, 221, 70.7, 90.1),
            (160, 154, 68.8, 89.0),
            (128, 99, 65.3, 86.9),
            (96, 56, 60.3, 83.2),
        ),
    ),
    (
        0.75,
        2.61,
        (
            (224, 209, 69.8, 89.6),
            (192, 153, 68.7, 88.9),
            (160, 107, 66.4, 87.3),
            (128, 69, 63.2, 85.3),
            (96, 39, 58.8, 81.6),
        ),
    ),
    (
        0.5,
        1.95,
        (
            (224, 97, 65.4, 86.4),
            (192, 71, 63.9, 85.4),
            (160, 50, 61.0, 83.2),
            (128, 32, 57.7, 80.8),
            (96, 18, 51.2, 75.8),
        ),
    ),
    (
        0.35,
        1.66,
        (
            (224, 59, 60.3, 82.9),
            (192, 43, 58.2, 81.2),
            (160, 30, 55.7, 79.1),
            (128, 20, 50.8, 75.0),
            (96, 11, 45.5, 70.4),
        ),
    ),
)


def _v3() -> Iterator[Published]:
    for variant, minimalistic, alpha, macs_m, parameters_m, top1, pixel1_ms, timm, timm_m, timm1, timm5 in _V3:
        spec = msgspec.convert({"variant": variant, "minimalistic": minimalistic, "alpha": alpha}, ModelSpec)
        yield Published(
            name=spec.slug,
            source=V3_SOURCE,
            spec=spec,
            macs_millions=macs_m,
            parameters_millions=parameters_m,
            parameters_decimals=1,
            top1=_share(top1),
            pixel1_s=round(pixel1_ms / 1e3, 4),
            timm=TimmPublished(
                name=timm, source=TIMM_SOURCE, parameters_millions=timm_m, top1=_share(timm1), top5=_share(timm5)
            ),
        )


def _v2() -> Iterator[Published]:
    for alpha, parameters_m, rows in _V2:
        for side, macs_m, top1, top5 in rows:
            spec = ModelSpec(variant="v2", alpha=alpha, height=side, width=side)
            yield Published(
                name=spec.slug,
                source=V2_SOURCE,
                spec=spec,
                macs_millions=macs_m,
                parameters_millions=parameters_m,
                parameters_decimals=2,
                top1=_share(top1),
                top5=_share(top5),
            )


def _share(percent: float) -> float:
    return round(percent / 100, 5)


PUBLISHED: tuple[Published, ...] = (*_v3(), *_v2())
_BY_NETWORK = {
    (entry.spec.variant, entry.spec.minimalistic, entry.spec.alpha, entry.spec.height, entry.spec.width): entry
    for entry in PUBLISHED
}
_BY_NAME = {entry.name: entry for entry in PUBLISHED} | {
    entry.timm.name: entry for entry in PUBLISHED if entry.timm is not None
}


def find(spec: ModelSpec) -> Published | None:
    """The checkpoint whose figures speak of ``spec``, a 1000-class classifier; its activation does not matter."""
    if not spec.include_top or spec.classes != 1000:
        return None
    return _BY_NETWORK.get((spec.variant, spec.minimalistic, spec.alpha, spec.height, spec.width))


def spec_by_name(name: str) -> ModelSpec:
    """The network of a published name: Keras's (``mobilenet_v3_large_0.75_224``) or timm's.

    Raises:
        SpecError: no such name.
    """
    entry = _BY_NAME.get(name.strip().lower())
    if entry is None:
        near = difflib.get_close_matches(name.strip().lower(), _BY_NAME, 1)
        hint = f"did you mean {near[0]}?" if near else "they are listed by: mbexport list."
        raise SpecError(f"no published model is called {name!r}; {hint} Others are built with --variant and --alpha")
    return entry.spec


def describe(spec: ModelSpec) -> Info:
    """Computed figures beside the published ones."""
    published = find(spec)
    return Info(
        spec=spec,
        parameters=parameters(spec),
        trainable_parameters=trainable_parameters(spec),
        parameters_without_batch_norm=parameters_without_batch_norm(spec),
        macs=macs(spec),
        macs_at=spec.size,
        published=published,
        disagreements=[] if published is None else list(_disagreements(spec, published)),
    )


def _disagreements(spec: ModelSpec, published: Published) -> Iterator[str]:
    if not _holds(published.macs_millions, macs(spec), 0):
        yield (
            f"the published {published.macs_millions} M multiply-accumulates do not hold: "
            f"the network has {macs(spec) / 1e6:.1f} M"
        )
    bare = parameters_without_batch_norm(spec)
    if not _holds(published.parameters_millions, bare, published.parameters_decimals):
        yield (
            f"the published {published.parameters_millions} M parameters do not hold: the network has "
            f"{trainable_parameters(spec) / 1e6:.2f} M trainable ones ({bare / 1e6:.2f} M without batch norm, "
            f"{parameters(spec) / 1e6:.2f} M with its moving statistics)"
        )
    if published.timm is not None and not _holds(published.timm.parameters_millions, trainable_parameters(spec), 2):
        yield (
            f"timm's {published.timm.parameters_millions} M parameters do not hold: "
            f"the network has {trainable_parameters(spec) / 1e6:.2f} M trainable ones"
        )


def _holds(published_millions: float, computed: int, decimals: int) -> bool:
    """Whether ``computed`` gives the published figure by rounding or by cutting off, as TF-slim's table does.

    That table says 11 for 11.93 M: a tolerance in percent wide enough for it would miss real errors elsewhere.
    """
    return abs(published_millions - computed / 1e6) < 10.0**-decimals
