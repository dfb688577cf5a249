"""Whether a process's samples moved while it measured: a step or a slope, of which a warm engine has neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WINDOWS = 20
"""Medians of so many stretches stand for a process, so that single stalls are no drift."""
_CHANCE = 1e-3


def drift_share(samples: Sequence[float]) -> float:
    """The largest step or slope over the whole, as a share of the median; 0 where chance would explain it.

    The slope is Theil and Sen's and counts where Kendall's tau is significant; the step is the largest difference of
    medians before and after a place, and counts where the two sides differ by Mann and Whitney's test with the number
    of places allowed for. Significant is 1 in 1000, since every process of every row is tested.

    Args:
        samples: one process's, in order, in any unit; too few for windows have no drift.
    """
    import numpy as np
    from scipy.stats import kendalltau, mannwhitneyu, theilslopes

    if len(samples) < 2 * _WINDOWS:
        return 0.0
    medians = np.array([np.median(part) for part in np.array_split(np.asarray(samples, float), _WINDOWS)])
    level = float(np.median(medians))
    places = range(_WINDOWS // 4, _WINDOWS - _WINDOWS // 4 + 1)
    steps = {place: abs(float(np.median(medians[place:]) - np.median(medians[:place]))) for place in places}
    place = max(steps, key=lambda found: steps[found])
    stepped = float(mannwhitneyu(medians[:place], medians[place:]).pvalue) * len(steps) < _CHANCE
    slope = float(theilslopes(medians).slope) * _WINDOWS
    sloped = float(kendalltau(np.arange(_WINDOWS), medians).pvalue) < _CHANCE
    return max(steps[place] * stepped, abs(slope) * sloped) / level
