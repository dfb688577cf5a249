"""A grid for each channel of a tensor, and how far each may trust the few pictures that it was seen on.

A channel of a late layer answers to a few classes. On pictures of others it stays small, its range ends early, and what
it says of its own classes is cut off: in V2's last blocks held-out pictures lose 5 to 50 times as much as the pictures
that the ranges are of. So ranges are drawn towards the widest channel's, as far as one half of the pictures asks for
when it is rounded to ranges of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mbexport.quantize.counts import Counts, Sums
from mbexport.quantize.grids import SHRINKS, Grid, affine, range_error

if TYPE_CHECKING:
    from mbexport.quantize.counts import Floats

_LEAST_SHARE = 1e-3
"""A channel's range is never less than this share of the widest one's: what was always zero on some pictures may not
be so on others, and a tiny scale overflows the bias, which is stored in units of it."""
_DRAWN = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
"""How far ranges may be drawn, by the logarithm: all the way, all channels have the widest one's."""


def channel_grid(counts: Counts, *, clip: bool = True) -> Grid:
    """A grid for each channel, by the least squared error of each on what was counted.

    Args:
        counts: of the tensor.
        clip: whether a range may end before the greatest number.
    """
    return _grid(*_ends(Sums.of(counts), clip=clip))


def cautious_grid(halves: tuple[Counts, Counts], gains: Floats, *, clip: bool = True) -> Grid:
    """The same for pictures that were not counted: see above.

    Args:
        halves: the numbers of half of the pictures and of the others, in the same bins.
        gains: what an error in each channel does, (channels,).
        clip: whether a range may end before the greatest number.
    """
    one, other = map(Sums.of, halves)
    tried = [(_ends(one, clip=clip), other), (_ends(other, clip=clip), one)]

    def held_out_error(drawn: float) -> float:
        errors = [range_error(seen, low, _drawn(low, high, drawn)) for (low, high), seen in tried]
        return float(sum(errors) @ gains)

    drawn = min(_DRAWN, key=held_out_error)
    low, high = _ends(Sums.of(Counts(halves[0].values, halves[0].counts + halves[1].counts)), clip=clip)
    return _grid(low, _drawn(low, high, drawn))


def _ends(seen: Sums, *, clip: bool) -> tuple[Floats, Floats]:
    """Where each channel's range begins and where it ends best."""
    low, most = np.minimum(seen.least, 0), np.maximum(seen.most, 0)
    floor = low + (most - low).max() * _LEAST_SHARE
    best, least = np.maximum(most, floor), np.full(len(low), np.inf)
    for shrink in SHRINKS if clip else [1.0]:
        high = np.maximum(most * shrink, floor)
        errors = range_error(seen, low, high)
        better = errors < least
        best[better], least[better] = high[better], errors[better]
    return low, best


def _drawn(low: Floats, high: Floats, drawn: float) -> Floats:
    """Ends of ranges that are wider by a share of what the widest one is wider, by the logarithm."""
    width = high - low
    return np.asarray(low + width ** (1 - drawn) * width.max() ** drawn)


def _grid(low: Floats, high: Floats) -> Grid:
    scale, point = affine(low, high)
    return Grid(scale.astype(np.float32), point.astype(np.uint8))
