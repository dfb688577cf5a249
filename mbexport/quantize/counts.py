"""How often the numbers of a tensor came, and what any range would make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_BINS = 512
_MOST_SAMPLES = 20_000_000
"""Numbers of one tensor that are counted: more change no range and cost time."""


@dataclass(frozen=True)
class Counts:
    """How often numbers came: ``values`` and ``counts`` are (channels, bins)."""

    values: Floats
    counts: Floats


def count(batches: Sequence[NDArray[np.float32]]) -> Counts:
    """Count the numbers of a tensor, by channel; batches are (pictures, channels, ...)."""
    one, other = count_halves(batches)
    return Counts(one.values, one.counts + other.counts)


def count_halves(batches: Sequence[NDArray[np.float32]]) -> tuple[Counts, Counts]:
    """The same for every other picture and for those between, in the same bins."""
    arrays = [batch.reshape(*batch.shape[:2], -1) for batch in batches]
    starts = np.cumsum([0, *map(len, arrays[:-1])])
    halves = [[each[(start + half) % 2 :: 2] for each, start in zip(arrays, starts, strict=True)] for half in range(2)]
    low, high = (end.astype(np.float64) for end in _extremes(arrays).T)
    width = (high - low) / (_BINS - 1)
    factor = np.divide(1, width, out=np.zeros(len(low)), where=width > np.finfo(np.float32).tiny)
    stride = max(1, sum(array.size for array in arrays) // _MOST_SAMPLES)
    values = low[:, None] + np.arange(_BINS) * width[:, None]
    counted = [
        sum((_binned(each[:, :, ::stride], low, factor) for each in half), np.zeros(values.size, np.int64))
        for half in halves
    ]
    if stride > 1:  # a half's extremes came at least once, whether or not they are among the samples
        for at, half in enumerate(halves):
            counted[at] = counted[at] + _binned(_extremes(half)[None], low, factor)
    one, other = (Counts(values, each.reshape(values.shape).astype(np.float64)) for each in counted)
    return one, other


def _extremes(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The least and the greatest number of each channel, (channels, 2); of no pictures none, (channels, 0)."""
    some = [array for array in arrays if len(array)]
    if not some:
        return np.empty((arrays[0].shape[1], 0), np.float32)
    least = np.minimum.reduce([array.min(axis=(0, 2)) for array in some])
    return np.stack([least, np.maximum.reduce([array.max(axis=(0, 2)) for array in some])], axis=1)


def _binned(array: NDArray[np.float32], low: Floats, factor: Floats) -> NDArray[np.int64]:
    """How many of the numbers (pictures, channels, places) fall to each bin of each channel, flat."""
    bins = np.rint((array - low.astype(np.float32)[:, None]) * factor.astype(np.float32)[:, None]).astype(np.int64)
    np.clip(bins, 0, _BINS - 1, out=bins)
    bins += (np.arange(len(low)) * _BINS)[:, None]
    return np.bincount(bins.reshape(-1), minlength=len(low) * _BINS)


@dataclass(frozen=True)
class Sums:
    """Sums over the numbers below each bin's edge, so that the error of any range takes a few of them."""

    low: Floats
    """The least number that has a bin, (channels,)."""
    width: Floats
    """Of a bin; 0 in a channel of one number."""
    least: Floats
    most: Floats
    powers: tuple[Floats, Floats, Floats]
    """How many numbers, their sum, and that of their squares; (channels, bins + 1)."""

    @classmethod
    def of(cls, counts: Counts) -> Sums:
        values, bins = counts.values, counts.values.shape[1]
        there = counts.counts > 0
        first, last = there.argmax(axis=1), bins - 1 - there[:, ::-1].argmax(axis=1)
        count, total, squares = (
            np.pad(np.cumsum(counts.counts * values**power, axis=1), ((0, 0), (1, 0))) for power in range(3)
        )
        return cls(
            low=values[:, 0],
            width=(values[:, -1] - values[:, 0]) / (bins - 1),
            least=np.take_along_axis(values, first[:, None], axis=1)[:, 0],
            most=np.take_along_axis(values, last[:, None], axis=1)[:, 0],
            powers=(count, total, squares),
        )

    def error(self, scale: Floats, low: Floats, high: Floats) -> Floats:
        """Summed squared error of steps of ``scale`` from ``low`` to ``high``, (channels,).

        Within a step errors are taken as evenly spread, but around 0, which has a level: rounding the bins themselves
        would flatter the steps that fall in with them.
        """
        all_of_them = [power[:, -1] for power in self.powers]
        under, not_over = self._below(low), self._below(high * (1 + 1e-9))
        over = [whole - part for whole, part in zip(all_of_them, not_over, strict=True)]
        clipped = _moved_to(high, over) + _moved_to(low, under)
        to_zero, before = self._below(np.minimum(scale / 2, high)), self._below(np.maximum(-scale / 2, low))
        rounded = not_over[0] - under[0] - (to_zero[0] - before[0])
        return np.asarray(clipped + (to_zero[2] - before[2]) + rounded * np.square(scale) / 12)

    def _below(self, bound: Floats) -> list[Floats]:
        """The three sums over numbers less than ``bound``, (channels,)."""
        bins = self.powers[0].shape[1] - 1
        constant = self.width == 0
        place = np.ceil((bound - self.low) / np.where(constant, 1, self.width))
        place = np.where(constant, (bound > self.low) * bins, np.clip(place, 0, bins)).astype(np.int64)
        return [np.take_along_axis(power, place[:, None], axis=1)[:, 0] for power in self.powers]


def _moved_to(bound: Floats, sums: list[Floats]) -> Floats:
    """Summed squared error of numbers that become ``bound``."""
    count, total, squares = sums
    return np.asarray(np.maximum(squares - 2 * bound * total + np.square(bound) * count, 0))
