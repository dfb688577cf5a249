"""Rows of figures, derived from stored samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.bench import statistics
from mbexport.bench.budget import BudgetPlan
from mbexport.bench.spread import percentile_interval, within_share
from mbexport.operators.table import OperatorTable
from mbexport.profile import ColdStart, LatencyProfile, Measurement, Scenario, ThreadPlan, Verdict
from mbexport.quantities import Mode
from mbexport.samples import unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence


class BenchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement's figures over all its processes' pooled samples; the names are the keys of the JSON report.

    Cold figures are the median process's, ``prepared`` that of processes which found what the engine kept of the model.
    ``memory_bytes`` is what loading the model and its first inference add to the process. ``between_share`` is the
    spread of the processes' medians, ``within_share`` that of the samples of one process. Intervals are 95%.
    """

    artifact: str

    runtime: str
    mode: Mode
    precision: str
    threads: int
    thread_plan: ThreadPlan
    batch: int
    scenario: Scenario
    concurrency: int
    model: str | None
    """As in :class:`mbexport.profile.Measurement`."""
    asked_options: dict[str, str]
    input_size: tuple[int, int] | None
    samples: int
    p50_s: float
    p90_s: float | None
    p99_s: float | None
    p50_ci_s: tuple[float, float]
    p99_ci_s: tuple[float, float] | None
    min_s: float
    mad_s: float
    between_share: float | None
    within_share: float
    device_p50_s: float | None
    """Without copying pictures to the device and answers back."""
    start_s: float | None
    import_s: float
    load_s: float
    first_inference_s: float
    prepared: ColdStart | None
    throughput_per_s: float
    memory_bytes: int
    memory_peak_bytes: int
    verdict: Verdict
    reasons: list[str]


class FailedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be measured: its engine cannot run the model, or a measuring process died."""

    artifact: str
    runtime: str
    mode: Mode
    threads: int
    batch: int
    reason: str


class TakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """Processes that an earlier bench ran before it was stopped, and that count among this one's."""

    processes: int
    measured_from: str
    """When the first of them had ended: ISO 8601, UTC."""


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``bench`` did; the names are the keys of the JSON report."""

    profile: str | None
    """The first artifact's profile; None where no row could be measured, so that there was nothing to write."""
    profiles: dict[str, str]
    """Artifact -> path of its profile, where a row of it could be measured."""
    rows: list[BenchRow]
    failed: list[FailedRow]
    resumed: int = 0
    """Rows that an earlier, unfinished bench had finished already."""
    taken_over: TakenOver | None = None
    """All that was measured by such a bench, in finished rows and others; None where nothing was."""
    unprepared: list[FailedRow] = []
    """Rows that were measured and stored, but could not be started with what their engine kept of the model."""
    operators: list[OperatorTable] = []
    """Where the time goes, for each row, where that was asked for."""
    replaced: list[str] = []
    """Why rows of older profiles were dropped, where they were."""
    budget: BudgetPlan | None = None
    """What the time budget was to buy, as it was said before measuring; None without one or with nothing left to do."""


def rows_of(profile: LatencyProfile) -> list[BenchRow]:
    return [row_of(profile.artifact, measurement) for measurement in profile.measurements]


def row_of(artifact: str, measurement: Measurement) -> BenchRow:
    """Derive one row; a measurement holds at least one sample."""
    replicates = measurement.replicates
    groups_s = [[sample * 1e-9 for sample in replicate.samples_ns] for replicate in replicates]
    samples_s = [sample for group_s in groups_s for sample in group_s]
    p99_s = statistics.percentile(samples_s, 0.99)
    device_s = [sample * 1e-9 for one in replicates if one.device_samples for sample in unpacked(one.device_samples)]
    pictures = [len(group_s) * measurement.batch for group_s in groups_s]
    walls_s = [count / replicate.throughput_per_s for count, replicate in zip(pictures, replicates, strict=True)]
    return BenchRow(
        artifact=artifact,
        runtime=measurement.runtime,
        mode=measurement.mode,
        precision=measurement.precision,
        threads=measurement.threads,
        thread_plan=measurement.thread_plan,
        batch=measurement.batch,
        scenario=measurement.scenario,
        concurrency=measurement.concurrency,
        model=measurement.model,
        asked_options=measurement.asked_options,
        input_size=measurement.input_size,
        samples=len(samples_s),
        p50_s=statistics.median(samples_s),
        p90_s=statistics.percentile(samples_s, 0.90),
        p99_s=p99_s,
        p50_ci_s=percentile_interval(groups_s, 0.5) or statistics.median_interval(samples_s),
        p99_ci_s=None if p99_s is None else percentile_interval(groups_s, 0.99),
        min_s=min(samples_s),
        mad_s=statistics.median_absolute_deviation(samples_s),
        between_share=statistics.between_share(groups_s),
        within_share=within_share(groups_s),
        device_p50_s=statistics.median(device_s) if device_s else None,
        **msgspec.structs.asdict(_median_start(replicates)),
        prepared=_median_start(measurement.prepared) if measurement.prepared else None,
        throughput_per_s=sum(pictures) / sum(walls_s),
        memory_bytes=int(statistics.median([replicate.memory_inferred_bytes for replicate in replicates])),
        memory_peak_bytes=max(replicate.memory_peak_bytes for replicate in replicates),
        verdict=measurement.verdict,
        reasons=measurement.reasons,
    )


def _median_start(starts: Sequence[ColdStart]) -> ColdStart:
    """Each part's median."""
    known_s = [start.start_s for start in starts if start.start_s is not None]
    return ColdStart(
        start_s=statistics.median(known_s) if known_s else None,
        import_s=statistics.median([start.import_s for start in starts]),
        load_s=statistics.median([start.load_s for start in starts]),
        first_inference_s=statistics.median([start.first_inference_s for start in starts]),
    )
