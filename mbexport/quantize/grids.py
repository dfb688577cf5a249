"""The steps that 8-bit numbers stand for, chosen by the error that rounding and clipping make where it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbexport.quantize.counts import Counts, Sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVELS = 255
"""Steps between the least and the greatest of 256 levels."""
SHRINKS = np.concatenate([np.geomspace(1, 0.3, 40), np.geomspace(0.29, 0.02, 30)])
"""Shares of the observed extreme that are tried as the end of the range."""
_BINS = 4096
_LEAST_BINS = 4
"""To a step, for them to stand for the numbers in it."""


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


def tensor_grid(counts: Counts, gains: Floats, *, clip: bool = True) -> Grid:
    """One grid for a tensor: the range with the least squared error, each channel weighted by ``gains``."""
    values, weights = _together(counts, gains)
    there, least, most = weights > 0, values[0], values[-1]
    seen, coarse = Sums.of(Counts(values[None], weights[None])), _LEAST_BINS * (values[1] - values[0])
    values, weights = values[there], weights[there]

    def error(bounds: tuple[float, float]) -> float:
        """Of the bins, which knows of whole numbers, unless steps are so fine that they fall in with bins."""
        low, high = map(np.atleast_1d, bounds)
        scale, point = affine(low, high)
        if scale[0] < coarse:
            return float(range_error(seen, low, high)[0])
        return float(weights @ np.square(_rounded(values, scale, point) - values))

    low, high = least, most
    for _ in range(2 if clip else 0):  # each end in turn, which finds what trying all pairs does
        low, high = min(((low, most * shrink) for shrink in SHRINKS), key=error)
        if least < 0:
            low, high = min(((least * shrink, high) for shrink in SHRINKS), key=error)
    return _grid((low, high))


def hard_swish_grid(counts: Counts, gains: Floats) -> Grid:
    """A grid for what a hard-swish reads, of the form ``scale = 3 / zero_point``; the error counts behind it.

    Below -3 a hard-swish is 0 whatever came, so the range may end there; and then the same 8-bit numbers, read with a
    zero point of 0, are x + 3.
    """
    values, weights = _together(counts, gains)
    values, weights = values[weights > 0], weights[weights > 0]
    truth = hard_swish(values)

    def error(bounds: tuple[float, float]) -> float:
        rounded = _rounded(values, *affine(*map(np.asarray, bounds)))
        return float(weights @ np.square(hard_swish(rounded) - truth))

    return _grid(min(((-3.0, 3.0 * (LEVELS - point) / point) for point in range(1, LEVELS + 1)), key=error))


def range_error(seen: Sums, low: Floats, high: Floats) -> Floats:
    """What a range of 256 levels makes of the numbers of each channel; see :meth:`Sums.error`."""
    scale, point = affine(low, high)
    return seen.error(scale, -scale * point, scale * (LEVELS - point))


def hard_swish(values: Floats) -> Floats:
    """``x * relu6(x + 3) / 6``."""
    return np.asarray(values * np.clip(values / 6 + 0.5, 0, 1))


def _together(counts: Counts, gains: Floats) -> tuple[Floats, Floats]:
    """All channels in one histogram, weighted: values and weights, (bins,)."""
    low, high = min(counts.values[:, 0].min(), 0.0), max(counts.values[:, -1].max(), 0.0)
    width = (high - low or 1.0) / (_BINS - 1)
    bins = np.rint((counts.values - low) / width).astype(np.int64).reshape(-1)
    weights = np.zeros(_BINS)
    np.add.at(weights, bins, (counts.counts * gains[:, None]).reshape(-1))
    return low + np.arange(_BINS, dtype=np.float64) * width, weights


def _grid(bounds: tuple[float, float]) -> Grid:
    scale, point = affine(*map(np.asarray, bounds))
    return Grid(np.asarray(scale, np.float32), np.asarray(point, np.uint8))


def affine(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Scale and zero point of a range that holds 0."""
    width = high - low
    scale: Floats = np.asarray(np.where(width > 0, width, 1.0) / LEVELS)
    point: Floats = np.clip(np.rint(-low / scale), 0, LEVELS)
    return scale, point


def _rounded(values: Floats, scale: Floats, point: Floats) -> Floats:
    return np.asarray((np.clip(np.rint(values / scale) + point, 0, LEVELS) - point) * scale)
