"""The published figures of the ImageNet checkpoints, as tables: what was published, by whom, and nothing computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

V3_SOURCE = "Keras, docstring of MobileNetV3Large and MobileNetV3Small"
SLIM_SOURCE = "TF-slim, research/slim/nets/mobilenet/README.md of tensorflow/models"
TIMM_SOURCE = "timm, docs/models/tf-mobilenet-v3.md"
TIMM_CSV_SOURCE = "timm, results/results-imagenet.csv"
PIXEL1 = "Google Pixel 1, TensorFlow Lite on one large core, float"
"""What the latencies were measured on, as TF-slim's README has it; Keras's docstring repeats those of V3."""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """ImageNet's validation set, fractions of 1; None where the source does not say."""

    source: str
    top1: float
    top5: float | None = None


class TimmPublished(msgspec.Struct, frozen=True, kw_only=True):
    """timm's copy of a checkpoint. ``top1`` and ``top5`` are shares of ImageNet's validation set, fractions of 1."""

    name: str
    source: str
    parameters_millions: float
    """Batch norm's moving statistics left out."""
    top1: float
    top5: float
    side_px: int = 224
    crop: float = 0.875
    """The share of the shorter side that the centre crop keeps."""
    interpolation: str = "bilinear"


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint's figures as published. ``top1`` and ``top5`` are fractions of 1."""

    name: str
    """The name in Keras's documentation, which is also the spec's slug."""
    source: str
    """Of all figures here but timm's and those of ``elsewhere``."""
    spec: ModelSpec
    macs_millions: int
    parameters_millions: float
    """Batch norm left out: so counted, all of V2's figures are exact."""
    parameters_decimals: int
    """How many digits behind the point were published."""
    top1: float
    top5: float | None = None
    pixel1_s: float
    """Latency in seconds on :data:`PIXEL1`."""
    timm: TimmPublished | None = None
    elsewhere: list[Accuracy] = []
    """The same checkpoint's accuracy as other sources have it."""


# variant, minimalistic, alpha; MACs and parameters in millions; top-1 %, and as TF-slim has it; Pixel 1 ms
_V3 = (
    ("large", False, 1.0, 217, 5.4, 75.6, 75.2, 51.2),
    ("large", False, 0.75, 155, 4.0, 73.3, 73.3, 39.8),
    ("large", True, 1.0, 209, 3.9, 72.3, 72.3, 44.1),
    ("small", False, 1.0, 66, 2.9, 68.1, 67.5, 15.8),
    ("small", False, 0.75, 44, 2.4, 65.4, 65.4, 12.8),
    ("small", True, 1.0, 65, 2.0, 61.9, 61.9, 12.2),
)
# In the same order: timm's name, parameters in millions; top-1 % and top-5 %, and as timm's table of results has them
_TIMM = (
    ("tf_mobilenetv3_large_100", 5.48, 75.51, 92.61, 75.516, 92.594),
    ("tf_mobilenetv3_large_075", 3.99, 73.45, 91.34, 73.432, 91.352),
    ("tf_mobilenetv3_large_minimal_100", 3.92, 72.24, 90.64, 72.258, 90.638),
    ("tf_mobilenetv3_small_100", 2.54, 67.92, 87.68, 67.918, 87.674),
    ("tf_mobilenetv3_small_075", 2.04, 65.72, 86.13, 65.728, 86.126),
    ("tf_mobilenetv3_small_minimal_100", 2.04, 62.91, 84.24, 62.890, 84.240),
)
# alpha, parameters in millions; (side in pixels, MACs in millions, top-1 %, top-5 %, Pixel 1 ms)
_V2 = (
    (1.4, 6.06, ((224, 582, 75.0, 92.5, 138.0),)),
    (1.3, 5.34, ((224, 509, 74.4, 92.1, 123.0),)),
    (
        1.0,
        3.47,
        (
            (224, 300, 71.8, 91.0, 73.8),
            (192, 221, 70.7, 90.1, 55.1),
            (160, 154, 68.8, 89.0, 40.2),
            (128, 99, 65.3, 86.9, 27.6),
            (96, 56, 60.3, 83.2, 17.6),
        ),
    ),
    (
        0.75,
        2.61,
        (
            (224, 209, 69.8, 89.6, 55.8),
            (192, 153, 68.7, 88.9, 41.6),
            (160, 107, 66.4, 87.3, 30.4),
            (128, 69, 63.2, 85.3, 21.9),
            (96, 39, 58.8, 81.6, 14.2),
        ),
    ),
    (
        0.5,
        1.95,
        (
            (224, 97, 65.4, 86.4, 28.7),
            (192, 71, 63.9, 85.4, 21.1),
            (160, 50, 61.0, 83.2, 14.9),
            (128, 32, 57.7, 80.8, 9.9),
            (96, 18, 51.2, 75.8, 6.4),
        ),
    ),
    (
        0.35,
        1.66,
        (
            (224, 59, 60.3, 82.9, 19.7),
            (192, 43, 58.2, 81.2, 14.6),
            (160, 30, 55.7, 79.1, 10.5),
            (128, 20, 50.8, 75.0, 6.9),
            (96, 11, 45.5, 70.4, 4.5),
        ),
    ),
)


def _v3() -> Iterator[Published]:
    for row, timm in zip(_V3, _TIMM, strict=True):
        variant, minimalistic, alpha, macs_m, parameters_m, top1, slim_top1, pixel1_ms = row
        timm_name, timm_parameters_m, timm_top1, timm_top5, csv_top1, csv_top5 = timm
        spec = msgspec.convert({"variant": variant, "minimalistic": minimalistic, "alpha": alpha}, ModelSpec)
        yield Published(
            name=spec.slug,
            source=V3_SOURCE,
            spec=spec,
            macs_millions=macs_m,
            parameters_millions=parameters_m,
            parameters_decimals=1,
            top1=_share(top1),
            pixel1_s=_seconds(pixel1_ms),
            timm=TimmPublished(
                name=timm_name,
                source=TIMM_SOURCE,
                parameters_millions=timm_parameters_m,
                top1=_share(timm_top1),
                top5=_share(timm_top5),
            ),
            elsewhere=[
                Accuracy(source=SLIM_SOURCE, top1=_share(slim_top1)),
                Accuracy(source=TIMM_CSV_SOURCE, top1=_share(csv_top1), top5=_share(csv_top5)),
            ],
        )


def _v2() -> Iterator[Published]:
    for alpha, parameters_m, rows in _V2:
        for side, macs_m, top1, top5, pixel1_ms in rows:
            spec = ModelSpec(variant="v2", alpha=alpha, height=side, width=side)
            yield Published(
                name=spec.slug,
                source=SLIM_SOURCE,
                spec=spec,
                macs_millions=macs_m,
                parameters_millions=parameters_m,
                parameters_decimals=2,
                top1=_share(top1),
                top5=_share(top5),
                pixel1_s=_seconds(pixel1_ms),
            )


def _share(percent: float) -> float:
    return round(percent / 100, 5)


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1e3, 4)


PUBLISHED: tuple[Published, ...] = (*_v3(), *_v2())
