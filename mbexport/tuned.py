"""What ``tune`` found, and its evidence: nouns only."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mbexport.quantities import Count, Mode, Rate, Seconds, Share, Whole

Objective = Literal["p50", "p99", "throughput"]
"""What a configuration is chosen by: a call's median, its 99th percentile, or pictures per second."""
AccuracyRule = Literal["float32", "top-1", "expected", "sqnr"]
"""Float32 is held to its own limit, and is out where it misses it. Else top-1 of labelled pictures, where they tell;
what float32's probabilities expect of the predictions that changed; or, of random weights, of features and without
pictures, the distance."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """All that it takes to run a network as it was measured."""

    artifact: str
    """The artifact's slug."""
    sha256: str
    """Of its model.onnx."""
    model: str
    """The model file in the artifact's folder."""
    model_sha256: str
    runtime: str
    mode: Mode
    threads: Count
    """Of all callers together."""
    callers: Count = 1
    """Calls under way at once."""
    batch: Count = 1
    options: dict[str, str] = {}
    """The engine's own options beyond those that mbexport always sets for this mode, thread count and callers."""


class AccuracyCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration's precision costs in accuracy, against float32. Shares of 1; 95% intervals."""

    rule: AccuracyRule
    inside: bool
    """Whether it stays within the limit."""
    fault: str | None = None
    """Why not, in words."""
    pictures: Whole = 0
    top1_drop: float | None = None
    """None without labels."""
    top1_drop_ci: tuple[float, float] | None = None
    expected_drop: float | None = None
    """Of top-1, by float32's own probabilities of the classes that took another's place; None where numbers judge."""
    agreement: Share | None = None
    """Share of pictures with the same class as in float32."""
    agreement_ci: tuple[Share, Share] | None = None
    sqnr_db: float | None = None
    least_sqnr_db: float | None = None


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times faster, with its 95% interval, of processes that took turns."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    ci: tuple[float, float]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration that was considered. Figures are of the last rung that it reached; None where not timed."""

    configuration: Configuration
    precision: str
    """Effective precision, read back from the engine."""
    accuracy: AccuracyCheck | None
    """None where the engine could not run it, or gave wrong answers in float32."""
    rung: Whole = 0
    """The last rung in which it was timed; 0 where it was not."""
    processes: Whole = 0
    """In that rung."""
    p50_s: Seconds | None = None
    p50_ci_s: tuple[Seconds, Seconds] | None = None
    """Of a process's median, Student's t of the logarithms, with three processes or more."""
    p99_s: Seconds | None = None
    """With enough samples."""
    throughput_per_s: Rate | None = None
    outcome: str
    """What became of it, in words."""


class TunedConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """The fastest configuration on this machine that stays inside an accuracy limit, and the evidence."""

    objective: Objective
    max_drop: Share
    """The limit, as a share of 1."""
    go: bool
    """Whether a narrower precision, as the engine computes, is faster than float32 beyond the noise; else this is
    float32's best."""
    configuration: Configuration
    precision: str
    """Effective precision."""
    accuracy: AccuracyCheck
    over_float32: Ratio
    """Over the best configuration in float32 of those that were tried."""
    over_defaults: Ratio | None
    """Over float32 on the same runtime at the default threads and options, one caller; None where that was not timed
    beside it."""
    engine_options: dict[str, str]
    """All of the engine's options as they were set, for the record."""
    versions: dict[str, str]
    tuned_on: str
    """ISO date, UTC."""
    trials: list[Trial]
    """The chosen one first, then by the rung that they reached."""
