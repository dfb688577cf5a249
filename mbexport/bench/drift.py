"""Whether a process's samples moved while it measured: a step or a slope, of which a warm engine has neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WINDOWS = 40
"""Medians of so many stretches stand for a process, so that single stalls are no drift.

A test by ranks cannot tell more than the number of windows lets it: for a clean step at a quarter Mann and Whitney's
p-value is 2 / (40 over 10) = 2e-9, which leaves room for windows that are out of place; of 20 windows it would be 1e-4,
which times the number of places is no longer significant, however large the step.
"""
_PLACES = range(_WINDOWS // 5, _WINDOWS - _WINDOWS // 5 + 1, 2)
"""Where a step is looked for: nearer to an end it is a start or a stall rather than a step."""
_CHANCE = 1e-3 / 2
"""For the step and for the slope, so that noise drifts in at most 1 of 1000 processes."""


def drift_share(samples: Sequence[float]) -> float:
    """The clearest step or the slope, whichever is larger, as a share of the median; 0 where chance explains both.

    The step is the difference of medians before and after the place where the two sides differ most clearly by Mann and
    Whitney's test, and counts where that is significant with the number of places allowed for. The slope is Theil and
    Sen's and counts where Kendall's tau is significant. Significant is 1 in 1000 for both together, since every process
    of every row is tested. The tests take windows as independent: a slow wander of the machine is significant too, so
    the share is what says whether it matters.

    Args:
        samples: one process's, in the order of time, in any unit; fewer than 40 have no drift.
    """
    import numpy as np

    if len(samples) < _WINDOWS:
        return 0.0
    medians = np.array([np.median(part) for part in np.array_split(np.asarray(samples, float), _WINDOWS)])
    return max(_step(medians), _slope(medians)) / float(np.median(medians))


def _step(medians: NDArray[Any]) -> float:
    import numpy as np
    from scipy.stats import mannwhitneyu

    # The smallest p-value finds the place. The largest difference would not: before a median has half its samples from
    # beyond the step, it does not move, so that every place up to twice the true one shows the same difference.
    chances = [float(mannwhitneyu(medians[:at], medians[at:], method="exact").pvalue) for at in _PLACES]
    least = min(chances)
    if least * len(_PLACES) >= _CHANCE:
        return 0.0
    at = _PLACES[chances.index(least)]
    return abs(float(np.median(medians[at:]) - np.median(medians[:at])))


def _slope(medians: NDArray[Any]) -> float:
    import numpy as np
    from scipy.stats import kendalltau, theilslopes

    if not kendalltau(np.arange(_WINDOWS), medians).pvalue < _CHANCE:  # NaN where all are equal
        return 0.0
    return abs(float(theilslopes(medians).slope)) * _WINDOWS
