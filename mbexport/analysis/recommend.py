"""The most accurate network that fits a latency budget on one machine, out of what was measured there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from mbexport.analysis.accuracies import check_measured, top1_of
from mbexport.analysis.machine import Precision
from mbexport.bench import statistics
from mbexport.bench.spread import percentile_interval
from mbexport.catalog import PUBLISHED
from mbexport.errors import InputError
from mbexport.profile import Verdict
from mbexport.quantities import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mbexport.analysis.accuracies import Evaluation, Top1
    from mbexport.analysis.machine import Cell, Machine

Percentile = Literal["p50", "p90", "p99"]
SHARES: dict[Percentile, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class RecommendRow(msgspec.Struct, frozen=True, kw_only=True):
    """One network with its fastest settings; the names are the keys of the JSON report. Shares are fractions of 1."""

    artifact: str
    runtime: str
    mode: Mode
    precision: str
    threads: int
    batch: int
    unusual: str
    """A model file or engine options other than the usual ones, in words; empty where there are none."""
    top1: float | None
    """As evaluated for this artifact, else, of a file in float32, as published for ImageNet's weights; None where there
    is neither."""
    top1_precision: str | None
    """What the network computed in when that was counted: not always this row's precision."""
    top1_source: str | None
    """Who published it, or on how many images and which runtime it was measured."""
    top1_ci: tuple[float, float] | None
    """95% interval of a measured one; None for a published one."""
    latency_s: float
    ci_s: tuple[float, float] | None
    """95% interval of the percentile; None where it has none."""
    fits: bool
    surely: bool | None
    """Whether the whole interval is on the same side of the budget; None without an interval."""
    verdict: Verdict
    reasons: list[str]
    profile: str


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """A measured row that cannot answer, and why."""

    artifact: str
    runtime: str
    mode: Mode
    precision: str
    threads: int
    batch: int
    reason: str
    profile: str


class NotMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """A published network without a row on this machine under these settings, of a file in float32."""

    artifact: str
    top1: float
    top1_source: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows were asked; None means any."""

    runtimes: list[str] | None = None
    mode: Mode | None = None
    threads: int | None = None
    batch: int = 1
    precisions: list[Precision] | None = None
    """What the engine computed in."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted.

    Raises:
        InputError: a budget that is no time above zero, or a share outside of 0 to 1.
    """

    budget_s: float
    percentile: Percentile = "p99"
    min_top1: float | None = None
    """A fraction of 1."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.budget_s) or self.budget_s <= 0:
            raise InputError(f"the budget must be a finite time above 0 ms, not {self.budget_s * 1e3:g}")
        if self.min_top1 is not None and not 0 <= self.min_top1 <= 1:
            raise InputError(f"top-1 must lie between 0 and 100 %, not {self.min_top1 * 100:g}")


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer; the names are the keys of the JSON report."""

    hardware: str
    cpu: str
    this_machine: bool
    budget_s: float
    percentile: Percentile
    min_top1: float | None
    settings: Settings
    best: RecommendRow | None
    runners_up: list[RecommendRow]
    """Others that fit and are accurate enough, the most accurate first."""
    over_budget: list[RecommendRow]
    """More accurate than the best (or all that are accurate enough, where nothing fits), the nearest first."""
    less_accurate: list[RecommendRow]
    """Those that fit, but for ``min_top1``; the most accurate first."""
    unknown_accuracy: list[RecommendRow]
    unanswered: list[Unanswered]
    not_measured: list[NotMeasured]


def recommend(
    machine: Machine, question: Question, settings: Settings, evaluations: Mapping[Path, Evaluation] | None = None
) -> Recommendation:
    """Choose among the measured rows of ``machine``; ties go to the faster.

    Args:
        machine: whose rows.
        question: what is wanted.
        settings: which of the rows.
        evaluations: top-1 to take in place of the published; see :mod:`mbexport.analysis.accuracies`.

    Raises:
        InputError: nothing was measured with these settings, or not what was evaluated.
    """
    evaluations = evaluations or {}
    cells = machine.chosen(
        runtimes=settings.runtimes,
        mode=settings.mode,
        threads=settings.threads,
        batch=settings.batch,
        precisions=settings.precisions,
    )
    check_measured(evaluations, machine, cells)
    timed, unanswered = _timed(cells, question.percentile, list(evaluations.values()))
    networks = _fastest(timed)
    known = [each for each in networks if each.top1 is not None]
    enough = [each for each in known if question.min_top1 is None or each.accuracy >= question.min_top1]
    fitting = sorted((each for each in enough if each.latency_s <= question.budget_s), key=_accurate_first)
    least = fitting[0].accuracy if fitting else -1.0
    over = [each for each in enough if each.latency_s > question.budget_s and each.accuracy > least]
    less = [each for each in known if each not in enough and each.latency_s <= question.budget_s]

    def rows(chosen: Iterable[_Timed]) -> list[RecommendRow]:
        return [_row(each, question) for each in chosen]

    fit = rows(fitting)
    return Recommendation(
        hardware=machine.hardware.slug,
        cpu=machine.hardware.cpu,
        this_machine=machine.here,
        budget_s=question.budget_s,
        percentile=question.percentile,
        min_top1=question.min_top1,
        settings=settings,
        best=fit[0] if fit else None,
        runners_up=fit[1:],
        over_budget=rows(sorted(over, key=_fast_first)),
        less_accurate=rows(sorted(less, key=_accurate_first)),
        unknown_accuracy=rows(sorted((each for each in networks if each.top1 is None), key=_fast_first)),
        unanswered=unanswered,
        not_measured=_not_measured(cells, settings),
    )


class _Timed(NamedTuple):
    cell: Cell
    latency_s: float
    top1: Top1 | None

    @property
    def accuracy(self) -> float:
        return -1.0 if self.top1 is None else self.top1.share


def _fast_first(each: _Timed) -> float:
    return each.latency_s


def _accurate_first(each: _Timed) -> tuple[float, float]:
    return -each.accuracy, each.latency_s


def _timed(
    cells: Sequence[Cell], percentile: Percentile, evaluations: Sequence[Evaluation]
) -> tuple[list[_Timed], list[Unanswered]]:
    """Those that can answer with their latency, and those that cannot."""
    timed, unanswered = [], []
    for cell in cells:
        samples_ns = cell.measurement.samples_ns
        latency_ns = statistics.percentile(samples_ns, SHARES[percentile])
        if cell.measurement.verdict == "invalid":
            unanswered.append(_unanswered(cell, "; ".join(["invalid", *cell.measurement.reasons])))
        elif latency_ns is None:
            least = statistics.min_samples(SHARES[percentile])
            held = "1 sample" if len(samples_ns) == 1 else f"{len(samples_ns)} samples"
            unanswered.append(_unanswered(cell, f"{held}; {percentile} needs {least}"))
        else:
            timed.append(_Timed(cell, latency_ns / 1e9, top1_of(cell, evaluations)))
    return timed, unanswered


def _unanswered(cell: Cell, reason: str) -> Unanswered:
    row = cell.measurement
    return Unanswered(
        artifact=cell.profile.artifact,
        runtime=row.runtime,
        mode=row.mode,
        precision=row.precision,
        threads=row.threads,
        batch=row.batch,
        reason=reason,
        profile=str(cell.path),
    )


def _fastest(timed: Iterable[_Timed]) -> list[_Timed]:
    """Each network once, with its fastest settings; once for each top-1 where runtimes differ in that."""
    found: dict[object, _Timed] = {}
    for each in sorted(timed, key=_fast_first):
        found.setdefault((each.cell.profile.artifact, each.cell.spec, each.accuracy), each)
    return list(found.values())


def _row(each: _Timed, question: Question) -> RecommendRow:
    measurement, top1 = each.cell.measurement, each.top1
    processes_s = [[sample / 1e9 for sample in one.samples_ns] for one in measurement.replicates]
    ci_s = percentile_interval(processes_s, SHARES[question.percentile])
    fits = each.latency_s <= question.budget_s
    surely = None if ci_s is None else (ci_s[1] <= question.budget_s if fits else ci_s[0] > question.budget_s)
    return RecommendRow(
        artifact=each.cell.profile.artifact,
        runtime=measurement.runtime,
        mode=measurement.mode,
        precision=measurement.precision,
        threads=measurement.threads,
        batch=measurement.batch,
        unusual=measurement.unusual,
        top1=None if top1 is None else top1.share,
        top1_precision=None if top1 is None else top1.precision,
        top1_source=None if top1 is None else top1.source,
        top1_ci=None if top1 is None else top1.interval,
        latency_s=each.latency_s,
        ci_s=ci_s,
        fits=fits,
        surely=surely,
        verdict=measurement.verdict,
        reasons=measurement.reasons,
        profile=str(each.cell.path),
    )


def _not_measured(cells: Sequence[Cell], settings: Settings) -> list[NotMeasured]:
    """The most accurate first. They are float32's, which no engine computes in int8."""
    if settings.precisions is not None and set(settings.precisions) == {"int8"}:
        return []
    measured = {cell.published.name for cell in cells if cell.published is not None}
    return [
        NotMeasured(artifact=entry.name, top1=entry.top1, top1_source=entry.source)
        for entry in sorted(PUBLISHED, key=lambda entry: -entry.top1)
        if entry.name not in measured
    ]
