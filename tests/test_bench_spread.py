"""Intervals, spreads and drift, against constructed truths."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mbexport.bench.drift import drift_share
from mbexport.bench.spread import percentile_interval, within_share

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_interval_is_that_of_drawing_processes_again() -> None:
    """Of three constant processes every draw is known: 27 of them, and the median of each is one of three values."""
    values = (1.0, 2.0, 4.0)
    draws = [sorted(drawn)[1] for drawn in itertools.product(values, repeat=3)]
    share = {value: count / 27 for value, count in Counter(draws).items()}
    assert share[1.0] > 0.025 < share[4.0]  # so the 95% interval reaches both ends
    assert percentile_interval([[value] * 50 for value in values], 0.5) == (1.0, 4.0)


def test_interval_of_equal_processes_is_a_point() -> None:
    assert percentile_interval([[3.0] * 20] * 5, 0.5) == (3.0, 3.0)
    assert percentile_interval([[3.0] * 20], 0.5) is None
    assert percentile_interval([], 0.5) is None


def test_larger_processes_weigh_more() -> None:
    """900 of 1000 samples are 1, so the median is, however few points stand for a large process."""
    low, high = percentile_interval([[1.0] * 900, [2.0] * 100], 0.5) or (0.0, 0.0)
    assert (low, high) == (1.0, 2.0)  # both drawn from the small one happens one time in four


@pytest.mark.parametrize(("share", "between", "within"), [(0.5, 0.02, 0.01), (0.5, 0.002, 0.03), (0.99, 0.003, 0.03)])
def test_interval_holds_the_truth_about_as_often_as_it_says(share: float, between: float, within: float) -> None:
    """Lognormal samples in processes that differ: the truth is known by a large sample.

    Bootstrapping five processes is known to come out short of its 95%. Where processes differ more than samples do,
    five of them cannot show the tail, and nothing drawn from them can.
    """
    rng = np.random.default_rng(0)

    def process(count: int) -> list[float]:
        level: float = np.exp(rng.normal(0, between))
        return [level * float(sample) for sample in rng.lognormal(0, within, count)]

    truth = np.quantile(np.concatenate([process(50) for _ in range(20_000)]), share)
    held = 0
    for _ in range(100):
        low, high = percentile_interval([process(140) for _ in range(5)], share) or (0, 0)
        held += low <= truth <= high
    assert 70 <= held <= 100


def test_within_is_the_processes_own_spread_and_not_that_between_them() -> None:
    rng = np.random.default_rng(1)
    groups = [(level * rng.normal(1, 0.03, 4000)).tolist() for level in (1.0, 2.0, 5.0)]
    assert within_share(groups) == pytest.approx(0.03, rel=0.1)
    assert within_share([[2.0] * 10] * 3) == 0


NOISE = np.random.default_rng(2).lognormal(0, 0.02, 1000)


@pytest.mark.parametrize(
    ("course", "share"),
    [
        (np.ones(1000), 0.0),
        (np.linspace(1, 1.3, 1000), 0.26),  # 0.3 over a median of 1.15
        (np.linspace(1.3, 1, 1000), 0.26),
        (np.where(np.arange(1000) < 400, 1.2, 1.0), 0.2),
        (np.where(np.arange(1000) % 97 == 0, 9.0, 1.0), 0.0),  # single stalls
        (1 + 0.1 * np.sin(np.arange(1000)), 0.0),
    ],
)
def test_drift_is_a_slope_or_a_step(course: NDArray[np.float64], share: float) -> None:
    assert drift_share((course * NOISE).tolist()) == pytest.approx(share, abs=0.05)


def test_noise_alone_does_not_drift() -> None:
    rng = np.random.default_rng(3)
    assert sum(drift_share(rng.lognormal(0, 0.05, 200).tolist()) > 0 for _ in range(300)) <= 3
    assert drift_share([1.0, 9.0] * 10) == 0  # too few to tell
