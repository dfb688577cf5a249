"""How often ``profile diff`` cries wolf and how often it catches a slowdown, beside the tests that it does not use.

    python benchmarks/diff_power.py [--draws N] [--processes K]... [--threshold T] [--seed S] [--profiles DIR]

Draws A and B from one model of a machine's noise, K process medians each, and compares them as they are, and with B
10% and 20% slower. Prints for every model and method: false alarms (faster or slower, of equals) and caught slowdowns,
in percent. Every method but the first fires where the ratio of its location (the median of the processes' medians, if
it has none of its own) exceeds the threshold and its test or interval excludes chance; "order 95%" is profile diff's
interval from one process further up, which holds in 95 of 100 whatever the noise. The last models draw from measured
profiles: a row, processes of it, and of a process's samples a contiguous half.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mbexport.analysis.change import change_of
from mbexport.profiles import list_profiles, shipped_profiles_dir
from mbexport.thresholds import DIFF_ABOVE_SHARE, DIFF_RUN_TO_RUN_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
SLOWDOWNS = (1.0, 1.1, 1.2)


def parametric(
    spread: float, *, hit: float = 0.0, by: float = 0.1, heavy: bool = False, runs: float = 0.0, drift: float = 0.0
) -> Callable[[np.random.Generator, int, int], Pair]:
    """Log-normal process medians, some of them disturbed upward.

    Args:
        spread: standard deviation of an undisturbed process, as a share.
        hit: how many of the processes are disturbed, as a share.
        by: how much, on average, as a share; exponential.
        heavy: Pareto of index 2 instead, whose variance is infinite.
        runs: standard deviation of a run as a whole.
        drift: standard deviation of a slow wander over both runs, which forgets itself in three processes' time.
    """

    def draw(rng: np.random.Generator, count: int, processes: int) -> Pair:
        shape = (count, 2 * processes)
        logs = spread * rng.standard_normal(shape) + _wander(rng, count, 2 * processes, drift)
        extra = rng.pareto(2.0, shape) if heavy else rng.exponential(1.0, shape)
        logs += np.where(rng.random(shape) < hit, by * extra, 0.0)
        a, b = logs[:, :processes], logs[:, processes:]
        return np.exp(a + runs * rng.standard_normal((count, 1))), np.exp(b + runs * rng.standard_normal((count, 1)))

    return draw


def two_states(share: float, by: float) -> Callable[[np.random.Generator, int, int], Pair]:
    """Each process in one of two states of the machine, as where its threads share a core or do not."""

    def draw(rng: np.random.Generator, count: int, processes: int) -> Pair:
        shape = (count, processes)
        sides = [0.01 * rng.standard_normal(shape) + by * (rng.random(shape) < share) for _ in range(2)]
        return np.exp(sides[0]), np.exp(sides[1])

    return draw


def measured(rows: Sequence[Sequence[Array]]) -> Callable[[np.random.Generator, int, int], Pair]:
    """Processes of a measured row, drawn with replacement, each with a contiguous half of its samples."""

    def draw(rng: np.random.Generator, count: int, processes: int) -> Pair:
        sides = np.empty((2, count, processes))
        for number in range(count):
            row = rows[int(rng.integers(len(rows)))]
            for place in np.ndindex(2, processes):
                samples = row[int(rng.integers(len(row)))]
                half = len(samples) // 2
                start = int(rng.integers(len(samples) - half + 1))
                sides[place[0], number, place[1]] = np.median(samples[start : start + half])
        return sides[0], sides[1]

    return draw


def models(profiles: Path) -> dict[str, Callable[[np.random.Generator, int, int], Pair]]:
    found: dict[str, Callable[[np.random.Generator, int, int], Pair]] = {
        "1%": parametric(0.01),
        "2%": parametric(0.02),
        "4%": parametric(0.04),
        "1%, 1 in 10 hit by 10%": parametric(0.01, hit=0.1),
        "1%, 2 in 10 hit by 10%": parametric(0.01, hit=0.2),
        "1%, 3 in 10 hit by 15%": parametric(0.01, hit=0.3, by=0.15),
        "1%, 2 in 10 Pareto 10%": parametric(0.01, hit=0.2, heavy=True),
        "all hit by 5%": parametric(0.0, hit=1.0, by=0.05),
        "runs 1%, 1 in 10 hit": parametric(0.01, hit=0.1, runs=0.01),
        "runs 1.5%, 1 in 10 hit": parametric(0.01, hit=0.1, runs=0.015),
        "7%, runs 4%": parametric(0.07, runs=0.04),
        "drift 2%, 1 in 10 hit": parametric(0.01, hit=0.1, drift=0.02),
        "states 10%, 3 in 10": two_states(0.3, 0.1),
        "states 50%, 5 in 10": two_states(0.5, 0.5),
    }
    rows: dict[int, list[list[Array]]] = {}
    for profile in list_profiles([profiles]).values():
        for row in profile.measurements:
            samples = [np.asarray(replicate.samples_ns, dtype=np.float64) for replicate in row.replicates]
            rows.setdefault(row.threads, []).append(samples)
    return found | {f"measured, threads {threads}": measured(rows[threads]) for threads in sorted(rows)}


def methods(threshold: float) -> dict[str, Callable[[Array, Array], Array]]:
    """Per method, of two arrays of process medians (draws, processes): -1 faster, 1 slower, 0 neither."""

    def beyond(ratio: Array, sure: NDArray[np.bool_]) -> Array:
        signs = np.where(ratio > 1 + threshold, 1.0, np.where(ratio < 1 / (1 + threshold), -1.0, 0.0))
        return signs * sure

    def medians(a: Array, b: Array) -> Array:
        return np.asarray(np.median(b, axis=1) / np.median(a, axis=1))

    def tested(p: Callable[[Array, Array], Any], least: float) -> Callable[[Array, Array], Array]:
        def decide(a: Array, b: Array) -> Array:
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # one process drawn several times
                return beyond(medians(a, b), np.asarray(p(np.log(a), np.log(b))) < least)

        return decide

    def permuted(a: Array, b: Array) -> Any:
        def means_apart(x: Array, y: Array, axis: int = -1) -> Array:
            return np.asarray(np.mean(y, axis=axis) - np.mean(x, axis=axis))

        return stats.permutation_test((a, b), means_apart, vectorized=True, axis=1, batch=50, n_resamples=1000).pvalue

    def bootstrapped(a: Array, b: Array) -> Array:
        rng = np.random.default_rng(0)
        picks = rng.integers(0, a.shape[1], (2, 400, a.shape[1]))
        ratios = np.median(b[:, picks[1]], axis=2) / np.median(a[:, picks[0]], axis=2)
        low, high = np.quantile(ratios, [0.01, 0.99], axis=1)
        return beyond(medians(a, b), (low > 1) | (high < 1))

    def ordered(a: Array, b: Array) -> Array:
        a, b = np.sort(a, axis=1), np.sort(b, axis=1)
        quiet, wider = (a.shape[1] + 1) // 2, 1 + DIFF_RUN_TO_RUN_SHARE
        rank = min(quiet + 1, a.shape[1]) - 1
        ratio = stats.gmean(b[:, :quiet], axis=1) / stats.gmean(a[:, :quiet], axis=1)
        sure = (b[:, 0] > wider * a[:, rank]) | (a[:, 0] > wider * b[:, rank])
        return beyond(ratio, sure & (np.abs(np.log(ratio)) > np.log((1 + threshold) * wider)))

    def own(a: Array, b: Array) -> Array:
        words = {"slower": 1.0, "faster": -1.0}
        verdicts = (change_of(x, y, threshold).verdict for x, y in zip(a.tolist(), b.tolist(), strict=True))
        return np.array([words.get(verdict, 0.0) for verdict in verdicts])

    return {
        "profile diff": own,
        "order 95%": ordered,
        "medians": lambda a, b: beyond(medians(a, b), np.full(len(a), fill_value=True)),
        "minima": lambda a, b: beyond(b.min(axis=1) / a.min(axis=1), np.full(len(a), fill_value=True)),
        "Welch 5%": tested(lambda a, b: stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue, 0.05),
        "Yuen 5%": tested(lambda a, b: stats.ttest_ind(a, b, axis=1, equal_var=False, trim=0.2).pvalue, 0.05),
        "Mann-W. 2%": tested(lambda a, b: stats.mannwhitneyu(a, b, axis=1, method="exact").pvalue, 0.02),
        "permut. 2%": tested(permuted, 0.02),
        "bootstrap": bootstrapped,
    }


def _wander(rng: np.random.Generator, count: int, steps: int, deviation: float) -> Array:
    """An Ornstein-Uhlenbeck path at whole steps, with a correlation time of three."""
    times = np.arange(steps)
    covariance = np.exp(-np.abs(times[:, None] - times) / 3.0)
    return np.asarray(deviation * rng.standard_normal((count, steps)) @ np.linalg.cholesky(covariance).T)


def _rates(method: Callable[[Array, Array], Array], a: Array, b: Array) -> list[float]:
    alarms = [method(a, b * slowdown) for slowdown in SLOWDOWNS]
    return [float(100 * np.mean(alarms[0] != 0)), *(float(100 * np.mean(alarm == 1)) for alarm in alarms[1:])]


def main() -> int:
    parser = argparse.ArgumentParser(description="False alarms and caught slowdowns of profile diff.")
    parser.add_argument("--draws", type=int, default=1000, metavar="N")
    parser.add_argument("--processes", type=int, action="append", metavar="K", help="(default: 3, 5 and 7)")
    parser.add_argument("--threshold", type=float, default=DIFF_ABOVE_SHARE, metavar="T")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--profiles", type=Path, default=shipped_profiles_dir(), metavar="DIR")
    arguments = parser.parse_args()
    compared = methods(arguments.threshold)
    for processes in arguments.processes or (3, 5, 7):
        print(f"\n{processes} processes: false alarms, caught 10%, caught 20%, of 100\n")
        print("| noise | " + " | ".join(compared) + " |")
        print("|---|" + "---:|" * len(compared))
        for name, model in models(arguments.profiles).items():
            a, b = model(np.random.default_rng(arguments.seed), arguments.draws, processes)
            cells = [" ".join(f"{rate:.1f}" for rate in _rates(method, a, b)) for method in compared.values()]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
