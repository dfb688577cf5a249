"""Seeded synthetic pictures: what random weights are calibrated on and what references are computed from.

Integer arithmetic only, so that a seed gives the same bytes on every machine. Each picture mixes coarse blocks, finer
ones and pixel noise, as photographs mix areas, edges and texture, at a brightness, contrast and tint of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OCTAVES = ((56, 5), (21, 4), (7, 3), (2, 2), (1, 1))
"""(block side in pixels, weight): coarse structure weighs most, as in photographs."""

REFERENCE_PICTURES = 4
"""How many pictures each size's reference is computed from."""
REFERENCE_SEED = 2**31
"""Apart from every calibration seed in practice, so that references are not the pictures calibrated on."""
_PIXELS = 8 * 224 * 224
_FEWEST, _MOST = 8, 64


def calibration_count(height: int, width: int) -> int:
    """How many pictures random weights are calibrated on: 8 from 224 on, more of smaller ones.

    At 32x32 the last feature map is one pixel a picture, and statistics of 8 numbers fit nothing but those 8. Fewer
    than 8 pictures fit only themselves at any size: with 4, V3 Large at 320 leaves all bounds on others.
    """
    return min(max(round(_PIXELS / (height * width)), _FEWEST), _MOST)


def pictures(count: int, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """``count`` RGB pictures, (count, height, width, 3), values 0..255."""
    rng = np.random.Generator(np.random.PCG64(seed))
    total = np.zeros((count, height, width, 3), np.int64)
    for side, weight in _OCTAVES:
        rows, columns = -(-height // side), -(-width // side)
        blocks = rng.integers(-128, 128, (count, rows, columns, 3), np.int64)
        total += weight * blocks.repeat(side, axis=1)[:, :height].repeat(side, axis=2)[:, :, :width]
    contrast = rng.integers(8, 20, (count, 1, 1, 1), np.int64)
    tint = rng.integers(80, 176, (count, 1, 1, 3), np.int64)
    shown: NDArray[np.uint8] = np.clip(total * contrast // 96 + tint, 0, 255).astype(np.uint8)
    return shown
