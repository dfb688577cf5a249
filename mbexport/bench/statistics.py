"""Figures from raw samples: pooled over processes, never averaged percentiles, never a clipped tail.

SciPy takes half a second to import, so it is imported where it is used: by the process that plans and reports, never by
one that measures.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from mbexport.thresholds import PERCENTILE_CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERVAL_CONFIDENCE = 0.95


@functools.cache
def min_samples(share: float) -> int:
    """Fewest samples for the percentile ``share`` (0.99 for p99), by the binomial rule of MLPerf loadgen.

    The smallest n with P(Binomial(n, 1 - share) <= 1) <= 1 - confidence: with 99% confidence at least two samples
    lie beyond the true percentile, so the sample does hold what the percentile speaks of.
    """
    from scipy.stats import binom

    low, high = 1, 2
    while binom.cdf(1, high, 1 - share) > 1 - PERCENTILE_CONFIDENCE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = binom.cdf(1, middle, 1 - share) <= 1 - PERCENTILE_CONFIDENCE
        low, high = (low, middle) if enough else (middle, high)
    return high


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The percentile with linear interpolation; None below its minimum sample.

    The median of one sample or more always exists; whether it can be trusted is the verdict's affair.
    """
    if share != 0.5 and len(samples) < min_samples(share):  # noqa: PLR2004 - the median
        return None
    return _quantile(samples, share)


def median(samples: Sequence[float]) -> float:
    return _quantile(samples, 0.5)


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """95% confidence interval of the median, from order statistics.

    SciPy's quantile test inverts the exact sign test: no assumption on the distribution, no resampling, the same
    answer every time, and for tens of thousands of samples as fast as a sort. It takes the samples as independent,
    so it says how well this sample fixes its median; how far processes differ stands beside it as their spread.
    Below six samples no such interval exists and the whole range is returned.
    """
    from scipy.stats import quantile_test

    interval = quantile_test(samples, p=0.5).confidence_interval(INTERVAL_CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    return (float(min(samples)) if math.isnan(low) else low, float(max(samples)) if math.isnan(high) else high)


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """Median distance from the median, in the samples' unit."""
    centre = median(samples)
    return median([abs(sample - centre) for sample in samples])


def between_share(groups: Sequence[Sequence[float]]) -> float | None:
    """Range of the groups' medians over the pooled median; None where there is but one group."""
    medians = [median(group) for group in groups]
    if len(medians) < 2:
        return None
    return (max(medians) - min(medians)) / median([sample for group in groups for sample in group])


def _quantile(samples: Sequence[float], share: float) -> float:
    import numpy as np

    return float(np.quantile(np.asarray(samples, dtype=np.float64), share))
