"""What precision.py measured, as it is kept in its file."""

from __future__ import annotations

import msgspec

from mbexport.quantize.change import Change
from mbexport.quantize.placement import Engine, Islands


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A file judged on the photographs that did not calibrate it, both halves pooled."""

    network: str
    form: Engine | None
    """None where another tool made the file."""
    variant: str
    target: str
    calibrated_on: int
    """Photographs, each way round."""
    change: Change
    divergence: float
    """Mean Kullback-Leibler divergence of the answers from float32's, in nats."""
    seconds: float
    """That making and judging took."""


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far answers stand from float32's, in dB."""

    network: str
    what: str
    """int8, bf16 (as the engine computes it), bf16 predicted, or nncf."""
    target: str
    reference_db: float
    """On the artifact's own pictures, from Keras's float64."""
    photographs_db: float | None
    """On photographs that did not calibrate it, from float32."""


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """Float32's time over that of a row, on one target, batch 1."""

    network: str
    target: str
    row: str
    ratio: float
    ratio_ci: tuple[float, float]
    """95%, of the rounds' median."""
    p50_s: float
    precision: str
    """As the engine says."""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """One block left in float32: what that gives and what it costs."""

    form: Engine
    block: str
    gain_db: float
    """Over everything in 8 bits."""
    ratio: float
    """Time of the file over that of everything in 8 bits."""
    ratio_ci: tuple[float, float]


class Channels(msgspec.Struct, frozen=True, kw_only=True):
    """An 8-bit depthwise product on ONNX Runtime, one thread."""

    kernel: int
    """3 or 5, by as many."""
    channels: int
    seconds: float


class Found(msgspec.Struct, kw_only=True):
    """Everything so far."""

    islands: dict[str, Islands] = {}
    """``network/form`` -> what stays in float32."""
    ablation: list[Judged] = []
    dithered: list[Judged] = []
    others: list[Judged] = []
    """Of bf16 and of NNCF."""
    distances: list[Distance] = []
    sensitivity: list[Left] = []
    channels: list[Channels] = []
    timed: list[Timed] = []
    """On one thread."""
    by_default: list[Timed] = []
    """At the engine's default options."""
    taken_s: dict[str, float] = {}
    """Part -> seconds that it took, in all its runs."""
