"""Drift against constructed truths: steps and slopes are found wherever they lie, and noise is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from mbexport import thresholds
from mbexport.bench.drift import drift_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNT = 138
"""Samples of one of five processes."""
TRIALS = 5


def drifts(course: NDArray[np.float64], spread: float = 0.03) -> list[float]:
    rng = np.random.default_rng(0)
    return [drift_share((course * rng.lognormal(0, spread, course.size)).tolist()) for _ in range(TRIALS)]


@pytest.mark.parametrize("size", [0.15, 0.5, 3.0])
@pytest.mark.parametrize("where", [0.25, 0.33, 0.5, 0.67, 0.75])
def test_a_step_is_found_wherever_it_lies(where: float, size: float) -> None:
    course = np.where(np.arange(COUNT) < where * COUNT, 1.0, 1 + size)
    assert min(drifts(course)) > thresholds.NOISY_DRIFT_SHARE
    assert min(drifts(1 / course)) > thresholds.NOISY_DRIFT_SHARE  # a fall


@pytest.mark.parametrize("size", [0.15, 0.5, 3.0])
def test_a_slope_is_found_with_its_size(size: float) -> None:
    found = drifts(np.linspace(1, 1 + size, COUNT))
    assert min(found) > thresholds.NOISY_DRIFT_SHARE
    # Of a straight line the rise over its middle.
    assert np.median(found) == pytest.approx(size / (1 + size / 2), rel=0.3)


@pytest.mark.parametrize("where", [0.33, 0.67])
def test_a_step_has_its_size(where: float) -> None:
    """A fifth of the level that most of the samples have, over which the other side stands."""
    course = np.where(np.arange(600) < where * 600, 1.0, 1.2)
    level = np.median(course)
    assert np.median(drifts(course)) == pytest.approx(0.2 / level, abs=0.03)


def test_a_small_step_is_told_small() -> None:
    course = np.where(np.arange(COUNT) < COUNT // 2, 1.0, 1.05)
    assert 0 < max(drifts(course, spread=0.01)) < thresholds.NOISY_DRIFT_SHARE


@pytest.mark.parametrize(("count", "spread"), [(40, 0.03), (COUNT, 0.3), (600, 0.1)])
def test_noise_alone_does_not_drift(count: int, spread: float) -> None:
    rng = np.random.default_rng(3)
    found = [drift_share(rng.lognormal(0, spread, count).tolist()) for _ in range(60)]
    assert sum(share > 0 for share in found) <= 1  # 1 in 1000 is asked for


def test_a_wander_that_forgets_itself_stays_under_the_limit() -> None:
    """Noise that lasts for ten samples: the tests, which take windows as independent, may see it; its size is small."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        wander = [0.0]
        for push in rng.normal(0, 0.03 * np.sqrt(1 - 0.9**2), 600):
            wander.append(0.9 * wander[-1] + push)
        assert drift_share(np.exp(wander).tolist()) < thresholds.NOISY_DRIFT_SHARE


def test_equal_samples_and_few_samples_do_not_drift() -> None:
    assert drift_share([2.0] * 500) == 0
    assert drift_share([1.0] * 19 + [9.0] * 20) == 0  # too few to tell
    assert drift_share([1.0, 2.0, 3.0, 4.0] * 50) == 0  # inputs in turn
