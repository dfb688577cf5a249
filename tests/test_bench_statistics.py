from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbexport.bench import statistics
from mbexport.thresholds import BENCH_MIN_SAMPLES


def at_most_one_beyond(samples: int, beyond: Fraction) -> Fraction:
    """P(Binomial(samples, beyond) <= 1), exactly."""
    inside = 1 - beyond
    return inside**samples + samples * beyond * inside ** (samples - 1)


@pytest.mark.parametrize(("share", "fewest"), [(0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_min_samples_is_mlperfs_table_and_the_exact_binomial(share: float, fewest: int) -> None:
    beyond = 1 - Fraction(str(share))
    assert at_most_one_beyond(fewest, beyond) <= Fraction(1, 100) < at_most_one_beyond(fewest - 1, beyond)
    assert statistics.min_samples(share) == fewest


def test_default_sample_holds_p99() -> None:
    assert statistics.min_samples(0.99) <= BENCH_MIN_SAMPLES


@pytest.mark.parametrize(("count", "known"), [(63, False), (64, True)])
def test_percentile_is_nothing_below_its_minimum(count: int, known: bool) -> None:
    assert (statistics.percentile(range(count), 0.9) is not None) == known
    assert statistics.percentile(range(count), 0.99) is None


def test_percentiles_keep_the_tail() -> None:
    samples = [1.0] * 680 + [1000.0] * 10
    assert statistics.percentile(samples, 0.5) == 1.0
    assert statistics.percentile(samples, 0.99) == 1000.0


def test_median_always_exists() -> None:
    assert statistics.percentile([3.0], 0.5) == 3.0
    assert statistics.median([4.0, 1.0, 2.0, 3.0]) == 2.5


def coverage_between(low: int, high: int, count: int) -> float:
    """Chance that a median lies between the order statistics ``low`` and ``high`` (from 1) of ``count``."""
    return float(Fraction(sum(math.comb(count, beneath) for beneath in range(low, high)), 2**count))


@pytest.mark.parametrize("count", [6, 25, 690])
def test_median_interval_covers_the_median_with_95_percent(count: int) -> None:
    samples = list(np.random.default_rng(0).permutation(np.arange(1, count + 1)))
    low, high = statistics.median_interval(samples)
    assert low <= statistics.median(samples) <= high
    assert coverage_between(int(low), int(high), count) >= 0.95
    if count > 6:
        assert coverage_between(int(low) + 1, int(high) - 1, count) < 0.95


def test_median_interval_of_few_samples_is_their_range() -> None:
    assert statistics.median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert statistics.median_interval([3.0]) == (3.0, 3.0)


def test_median_absolute_deviation() -> None:
    assert statistics.median_absolute_deviation([1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]) == 1.0


def test_between_share_is_the_medians_range_over_the_pooled_median() -> None:
    assert statistics.between_share([[90, 90, 90], [100, 100, 100], [110, 110, 110]]) == pytest.approx(0.2)
    assert statistics.between_share([[1, 2, 3]]) is None


@given(st.lists(st.integers(1, 10**10), min_size=64, max_size=200), st.integers(2, 1000))
def test_figures_scale_with_the_unit(samples: list[int], factor: int) -> None:
    scaled = [sample * factor for sample in samples]
    for figure in (statistics.median, statistics.median_absolute_deviation):
        assert figure(scaled) == pytest.approx(figure(samples) * factor)
    assert statistics.percentile(scaled, 0.9) == pytest.approx((statistics.percentile(samples, 0.9) or 0) * factor)
