"""Figures of a candidate from its processes, and how many times faster one is than another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mbexport.bench import statistics
from mbexport.thresholds import BENCH_LEAST_REPLICATES as LEAST_ROUNDS
from mbexport.tuned import Ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mbexport.bench.plan import WorkerAnswer
    from mbexport.tuned import Objective

    Answers = Sequence[WorkerAnswer]

P99, P90 = 0.99, 0.9
_POINTS = 400
"""So many evenly spaced quantiles stand for a process's samples where it has more."""
_ROUNDING = 1e-12


def quick_cost_s(answers: Answers, objective: Objective) -> float:
    """Seconds a call, or a picture for throughput, of the process that was disturbed least: neighbours only ever slow
    one down. A short rung has too few samples to tell p99, but enough to rank by what they say of it.
    """
    if objective == "throughput":
        return min(1 / answer.replicate.throughput_per_s for answer in answers)
    share = P99 if objective == "p99" else 0.5
    return min(float(np.quantile(answer.replicate.samples_ns, share)) * 1e-9 for answer in answers)


def tail_share(rows: Sequence[Answers]) -> float:
    """The tail percentile, of p99 and those below it, that all rows have enough samples for."""
    fewest = min(sum(len(answer.replicate.samples_ns) for answer in answers) for answers in rows)
    return next((share for share in (P99, P90) if fewest >= statistics.min_samples(share)), 0.5)


def cost_s(answers: Answers, objective: Objective, tail: float = P99) -> float:
    """Seconds a call, or a picture for throughput, of all processes together."""
    return float(_costs_s(answers, np.ones((1, len(answers))), objective, tail)[0])


def ratio_of(slow: Answers, fast: Answers, objective: Objective, tail: float = P99) -> Ratio:
    """How many times faster ``fast`` is, from processes that took turns: the first of each ran in one round, and so on.

    What drifted from round to round, in both alike, does not widen the 95% interval, for a round is one pair.

    - p50 and throughput: the geometric mean of the rounds' ratios, with Student's t interval of their logarithms.
    - p99: the ratio of the pooled samples' percentiles, since one process has too few of them for its own. Its interval
      is Student's t of the jackknife over rounds (Miller, "The jackknife: a review", 1974), of logarithms too. In
      simulations of 3 to 9 rounds of 138 calls with a heavy tail it held the truth with 93 to 94%.

    Raises:
        ValueError: fewer rounds than an interval needs (:data:`mbexport.thresholds.BENCH_LEAST_REPLICATES`).
    """
    rounds = min(len(slow), len(fast))
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"an interval needs {LEAST_ROUNDS} rounds, not {rounds}")
    single = np.eye(rounds)
    if objective != "p99":
        value, *ends = _student(_log_ratios(slow, fast, single, objective, tail))
    else:
        (whole,) = _log_ratios(slow, fast, np.ones((1, rounds)), objective, tail)
        without = _log_ratios(slow, fast, 1 - single, objective, tail)
        middle, low, high = _student(rounds * whole - (rounds - 1) * without)
        value, ends = float(whole), [whole + low - middle, whole + high - middle]
    return Ratio(value=math.exp(value), ci=(math.exp(ends[0]), math.exp(ends[1])))


def p50_interval_s(answers: Answers) -> tuple[float, float] | None:
    """95% interval of a process's median, Student's t of the logarithms; None of fewer processes than that needs."""
    if len(answers) < LEAST_ROUNDS:
        return None
    _, low, high = _student(np.log(_costs_s(answers, np.eye(len(answers)), "p50", P99)))
    return math.exp(low), math.exp(high)


def _log_ratios(
    slow: Answers, fast: Answers, times: NDArray[np.float64], objective: Objective, tail: float
) -> NDArray[np.float64]:
    """For each row of ``times``, see :func:`_costs_s`."""
    rounds = times.shape[1]
    slows_s, fasts_s = (_costs_s(side[:rounds], times, objective, tail) for side in (slow, fast))
    return np.log(slows_s / fasts_s)


def _student(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean of independent values, and the ends of its 95% interval."""
    from scipy.special import stdtrit

    mean = float(values.mean())
    half = float(stdtrit(values.size - 1, 0.975) * values.std(ddof=1) / math.sqrt(values.size))
    return mean, mean - half, mean + half


def _costs_s(answers: Answers, times: NDArray[np.float64], objective: Objective, tail: float) -> NDArray[np.float64]:
    """The figure of each row of ``times`` (rows, processes), which says how often each process counts."""
    samples_s = [np.array(answer.replicate.samples_ns, np.float64) * 1e-9 for answer in answers]
    calls = np.array([each.size for each in samples_s])
    if objective == "throughput":  # of calls: how many pictures each has is the same on both sides of a ratio
        walls_s = calls / np.array([answer.replicate.throughput_per_s for answer in answers])
        found: NDArray[np.float64] = (times @ walls_s) / (times @ calls)
        return found
    sketches = [_sketch(each) for each in samples_s]
    values = np.concatenate(sketches)
    owners = np.repeat(np.arange(len(sketches)), [each.size for each in sketches])
    order = np.argsort(values, kind="stable")
    weights = times[:, owners[order]] * (calls / [each.size for each in sketches])[owners[order]]
    reached = np.cumsum(weights, axis=1)
    share = tail if objective == "p99" else 0.5
    places = (reached < share * reached[:, -1:] * (1 - _ROUNDING)).sum(axis=1)
    found_s: NDArray[np.float64] = values[order][np.minimum(places, values.size - 1)]
    return found_s


def _sketch(samples_s: NDArray[np.float64]) -> NDArray[np.float64]:
    if samples_s.size <= _POINTS:
        return samples_s
    places = (np.arange(_POINTS) + 0.5) / _POINTS
    found: NDArray[np.float64] = np.quantile(samples_s, places)
    return found
