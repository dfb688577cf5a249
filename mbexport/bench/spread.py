"""How well a row's processes fix its percentiles: bootstrap intervals, and the spread within processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport.bench.statistics import INTERVAL_CONFIDENCE, median, median_absolute_deviation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 499
"""An interval's ends then move by a tenth of its width from seed to seed; the seed is fixed."""
_POINTS = 400
"""A process's samples stand for themselves up to so many; beyond, so many evenly spaced quantiles stand for them."""
_NORMAL_MAD = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""


def percentile_interval(groups: Sequence[Sequence[float]], share: float) -> tuple[float, float] | None:
    """95% bootstrap interval of a percentile of the pooled samples; None with fewer than two groups.

    What is drawn again are whole processes: samples of one process follow each other and share its luck with caches,
    memory and neighbours, so they are no independent draws, and an interval of theirs would be far too narrow.
    """
    from scipy.stats import bootstrap

    if len(groups) < 2:
        return None
    import numpy as np

    sketches = [_sketch(np.asarray(group, dtype=np.float64)) for group in groups]
    values = np.concatenate(sketches)
    order = np.argsort(values)
    owners = np.repeat(np.arange(len(groups)), [len(sketch) for sketch in sketches])[order]
    weights = np.array([len(group) / len(sketch) for group, sketch in zip(groups, sketches, strict=True)])

    def percentile(drawn: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        """Of the samples of the drawn processes, each as often as it was drawn."""
        drawn = np.moveaxis(np.atleast_2d(drawn), axis, -1)
        times = (drawn[..., None] == np.arange(len(groups))).sum(axis=-2) * weights
        reached = np.cumsum(times[..., owners], axis=-1)
        place = (reached < share * reached[..., -1:]).sum(axis=-1)
        found: NDArray[Any] = values[order][np.minimum(place, values.size - 1)]
        return found

    centre = float(percentile(np.arange(len(groups))).squeeze())
    drawn = bootstrap(
        (np.arange(len(groups)),),
        percentile,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=INTERVAL_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = drawn.confidence_interval
    return min(float(interval.low), centre), max(float(interval.high), centre)


def within_share(groups: Sequence[Sequence[float]]) -> float:
    """Median over processes of their samples' spread (a robust standard deviation) over their median."""
    return median([_NORMAL_MAD * median_absolute_deviation(group) / median(group) for group in groups])


def _sketch(samples: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    if samples.size <= _POINTS:
        return np.sort(samples)
    found: NDArray[Any] = np.quantile(samples, (np.arange(_POINTS) + 0.5) / _POINTS)
    return found
