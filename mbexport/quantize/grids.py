"""The steps that 8-bit numbers stand for, chosen by the error that rounding and clipping make where it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVELS = 255
"""Steps between the least and the greatest of 256 levels."""
_SHRINKS = np.concatenate([np.geomspace(1, 0.3, 40), np.geomspace(0.29, 0.02, 30)])
"""Shares of the observed extreme that are tried as the end of the range."""
_CHANNEL_BINS, _TENSOR_BINS = 512, 4096
_MOST_SAMPLES = 20_000_000
"""Numbers of one tensor that are counted: more change no range and cost time."""
_LEAST_SHARE = 1e-3
"""A channel's range is never less than this share of the widest one's: what was always zero on some pictures may not
be so on others, and a tiny scale overflows the bias, which is stored in units of it."""


@dataclass(frozen=True)
class Grid:
    """Unsigned 8-bit numbers q that stand for ``scale * (q - zero_point)``: one pair, or one for each channel."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8]

    @property
    def low(self) -> NDArray[np.float32]:
        """The least number that has a level."""
        return -self.scale * self.zero_point.astype(np.float32)

    def rounded(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the 8-bit numbers nearest to (pictures, channels, ...) stand for."""
        shape = (-1, *[1] * (batch.ndim - 2)) if self.scale.ndim else ()
        scale, point = self.scale.reshape(shape), self.zero_point.astype(np.float32).reshape(shape)
        steps: NDArray[np.float32] = np.rint(batch / scale)
        np.clip(steps, -point, LEVELS - point, out=steps)
        steps *= scale
        return steps

    @property
    def high(self) -> NDArray[np.float32]:
        """The greatest number that has a level."""
        return self.scale * (LEVELS - self.zero_point.astype(np.float32))


@dataclass(frozen=True)
class Counts:
    """How often numbers came: ``values`` and ``counts`` are (channels, bins)."""

    values: Floats
    counts: Floats


def count(batches: Iterable[NDArray[np.float32]]) -> Counts:
    """Count the numbers of a tensor, by channel; batches are (pictures, channels, ...)."""
    arrays = [batch.reshape(*batch.shape[:2], -1) for batch in batches]
    low = np.minimum.reduce([array.min(axis=(0, 2)) for array in arrays]).astype(np.float64)
    high = np.maximum.reduce([array.max(axis=(0, 2)) for array in arrays]).astype(np.float64)
    width = (high - low) / (_CHANNEL_BINS - 1)
    channels = len(low)
    found = np.zeros(channels * _CHANNEL_BINS)
    stride = max(1, sum(array.size for array in arrays) // _MOST_SAMPLES)
    told_apart = width > np.finfo(np.float32).tiny
    factor = np.divide(1, width, out=np.zeros(channels), where=told_apart).astype(np.float32)[:, None]
    offset = low.astype(np.float32)[:, None]
    first = (np.arange(channels) * _CHANNEL_BINS)[:, None]
    for array in arrays:
        bins = np.rint((array[:, :, ::stride] - offset) * factor).astype(np.int64)
        np.clip(bins, 0, _CHANNEL_BINS - 1, out=bins)
        bins += first
        found += np.bincount(bins.reshape(-1), minlength=len(found))
    counts = found.reshape(channels, -1)
    counts[:, [0, -1]] += 1  # the extremes came at least once, whether or not they were among the samples
    return Counts(low[:, None] + np.arange(_CHANNEL_BINS) * width[:, None], counts)


def tensor_grid(
    counts: Counts,
    gains: Floats,
    *,
    clip: bool = True,
) -> Grid:
    """One grid for a tensor: the range with the least squared error, each channel weighted by ``gains``."""
    values, weights = _together(counts, gains)
    low, high = values[0], values[-1]
    for _ in range(2 if clip else 0):  # each end in turn, which finds what trying all pairs does
        low, high = _best([(low, values[-1] * shrink) for shrink in _SHRINKS], values, weights)
        if values[0] < 0:
            low, high = _best([(values[0] * shrink, high) for shrink in _SHRINKS], values, weights)
    return _grid((low, high))


def hard_swish_grid(counts: Counts, gains: Floats) -> Grid:
    """A grid for what a hard-swish reads, of the form ``scale = 3 / zero_point``.

    Below -3 a hard-swish is 0 whatever came, so the range may end there; and then the same 8-bit numbers, read with a
    zero point of 0, are x + 3.
    """
    values, weights = _together(counts, gains)
    points = np.arange(1, LEVELS + 1)
    return _grid(_best([(-3.0, 3.0 * (LEVELS - point) / point) for point in points], values, weights, hard_swish))


def channel_grid(counts: Counts, *, clip: bool = True) -> Grid:
    """A grid for each channel, by the least squared error of each."""
    lows, highs = np.minimum(counts.values[:, 0], 0), np.maximum(counts.values[:, -1], 0)
    floor = (highs - lows).max() * _LEAST_SHARE
    best_errors, best_scales = np.full(len(lows), np.inf), np.zeros(len(lows))
    best_points = np.zeros(len(lows))
    for shrink in _SHRINKS if clip else [1.0]:
        scales, points = _affine(lows, np.maximum(highs * shrink, lows + floor))
        rounded = _rounded(counts.values, scales[:, None], points[:, None])
        errors = (counts.counts * np.square(rounded - counts.values)).sum(axis=1)
        better = errors < best_errors
        best_errors[better], best_scales[better], best_points[better] = errors[better], scales[better], points[better]
    return Grid(best_scales.astype(np.float32), best_points.astype(np.uint8))


def hard_swish(values: Floats) -> Floats:
    """``x * relu6(x + 3) / 6``."""
    return np.asarray(values * np.clip(values / 6 + 0.5, 0, 1))


def _together(counts: Counts, gains: Floats) -> tuple[Floats, Floats]:
    """All channels in one histogram, weighted: values and weights, (bins,)."""
    low, high = min(counts.values[:, 0].min(), 0.0), max(counts.values[:, -1].max(), 0.0)
    width = (high - low or 1.0) / (_TENSOR_BINS - 1)
    bins = np.rint((counts.values - low) / width).astype(np.int64).reshape(-1)
    weights = np.zeros(_TENSOR_BINS)
    np.add.at(weights, bins, (counts.counts * gains[:, None]).reshape(-1))
    return low + np.arange(_TENSOR_BINS, dtype=np.float64) * width, weights


def _best(
    ranges: Sequence[tuple[float, float]],
    values: Floats,
    weights: Floats,
    seen: Callable[[Floats], Floats] = lambda values: values,
) -> tuple[float, float]:
    """The range with the least weighted squared error; ``seen`` is what becomes of numbers before the error counts."""
    there = weights > 0
    values, weights = values[there], weights[there]
    truth = seen(values)

    def error(bounds: tuple[float, float]) -> float:
        rounded = seen(_rounded(values, *_affine(*map(np.asarray, bounds))))
        return float(weights @ np.square(rounded - truth))

    return min(ranges, key=error)


def _grid(bounds: tuple[float, float]) -> Grid:
    scale, point = _affine(*map(np.asarray, bounds))
    return Grid(np.asarray(scale, np.float32), np.asarray(point, np.uint8))


def _affine(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Scale and zero point of a range that holds 0."""
    width = high - low
    scale: Floats = np.asarray(np.where(width > 0, width, 1.0) / LEVELS)
    point: Floats = np.clip(np.rint(-low / scale), 0, LEVELS)
    return scale, point


def _rounded(values: Floats, scale: Floats, point: Floats) -> Floats:
    return np.asarray((np.clip(np.rint(values / scale) + point, 0, LEVELS) - point) * scale)
