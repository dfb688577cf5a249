"""Rows of figures, derived from stored samples."""

from __future__ import annotations

import msgspec

from mbexport.bench import statistics
from mbexport.profile import LatencyProfile, Measurement, Mode, Verdict


class BenchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement's figures over all its processes' pooled samples; the names are the keys of the JSON report.

    Cold figures are the median process's. ``memory_bytes`` is what loading the model and its first inference add to
    the process; ``between_share`` is the spread of the processes' medians.
    """

    runtime: str
    mode: Mode
    precision: str
    threads: int
    batch: int
    input_size: tuple[int, int] | None
    samples: int
    p50_s: float
    p90_s: float | None
    p99_s: float | None
    p50_ci_s: tuple[float, float]
    min_s: float
    mad_s: float
    between_share: float | None
    import_s: float
    load_s: float
    first_inference_s: float
    throughput_per_s: float
    memory_bytes: int
    memory_peak_bytes: int
    verdict: Verdict
    reasons: list[str]


class FailedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be measured: its engine cannot run the model, or a measuring process died."""

    runtime: str
    mode: Mode
    reason: str


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``bench`` did; the names are the keys of the JSON report."""

    profile: str | None
    """The profile's path; None where no row could be measured, so that there was nothing to write."""
    rows: list[BenchRow]
    failed: list[FailedRow]
    replaced: str | None = None
    """Why an older profile's rows were dropped, where they were."""


def rows_of(profile: LatencyProfile) -> list[BenchRow]:
    return [row_of(measurement) for measurement in profile.measurements]


def row_of(measurement: Measurement) -> BenchRow:
    """Derive one row; a measurement holds at least one sample."""
    samples_s = [sample * 1e-9 for sample in measurement.samples_ns]
    replicates = measurement.replicates
    pictures = [len(replicate.samples_ns) * measurement.batch for replicate in replicates]
    walls_s = [count / replicate.throughput_per_s for count, replicate in zip(pictures, replicates, strict=True)]
    return BenchRow(
        runtime=measurement.runtime,
        mode=measurement.mode,
        precision=measurement.precision,
        threads=measurement.threads,
        batch=measurement.batch,
        input_size=measurement.input_size,
        samples=len(samples_s),
        p50_s=statistics.median(samples_s),
        p90_s=statistics.percentile(samples_s, 0.90),
        p99_s=statistics.percentile(samples_s, 0.99),
        p50_ci_s=statistics.median_interval(samples_s),
        min_s=min(samples_s),
        mad_s=statistics.median_absolute_deviation(samples_s),
        between_share=statistics.between_share([replicate.samples_ns for replicate in replicates]),
        import_s=statistics.median([replicate.import_s for replicate in replicates]),
        load_s=statistics.median([replicate.load_s for replicate in replicates]),
        first_inference_s=statistics.median([replicate.first_inference_s for replicate in replicates]),
        throughput_per_s=sum(pictures) / sum(walls_s),
        memory_bytes=int(statistics.median([replicate.memory_inferred_bytes for replicate in replicates])),
        memory_peak_bytes=max(replicate.memory_peak_bytes for replicate in replicates),
        verdict=measurement.verdict,
        reasons=measurement.reasons,
    )
