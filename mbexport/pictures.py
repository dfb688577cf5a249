"""Seeded synthetic pictures: what random weights are calibrated on and what references are computed from.

Integer arithmetic only, so that a seed gives the same bytes on every machine. Each picture mixes coarse blocks, finer
ones and pixel noise, as photographs mix areas, edges and texture, at a brightness, contrast and tint of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_OCTAVES = ((56, 5), (21, 4), (7, 3), (2, 2), (1, 1))
"""(block side in pixels, weight): coarse structure weighs most, as in photographs."""

REFERENCE_PICTURES = 4
"""How many pictures each size's reference is computed from at least."""
REFERENCE_NUMBERS = 12
"""How many numbers the answers to all of them must hold, as four pictures of four classes do: of two classes and of
three more pictures are taken, for of few numbers it is a matter of luck how much noise they hold."""
REFERENCE_SEED = 2**31
"""Apart from every calibration seed in practice, so that references are not the pictures calibrated on."""
_SHAPES_SEED = REFERENCE_SEED + 9
"""Of the seeds tried, the one that makes trained networks cross most knees and no picture outweigh the others."""
_SHAPES, _NOISE = 12, 16
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


def reference_count(numbers: int) -> int:
    """How many pictures it takes where the answer to one holds so many numbers that are free, at least 1."""
    return max(REFERENCE_PICTURES, -(-REFERENCE_NUMBERS // numbers))


def reference_pictures(height: int, width: int, count: int = REFERENCE_PICTURES) -> NDArray[np.uint8]:
    """The pictures that references are computed from, (count, height, width, 3), values 0..255.

    Of each four, two are made as for calibration, two show plain areas between hard edges, as photographs do, and a
    fine checkerboard in a corner. Those drive the deep layers of trained networks further: MobileNetV2 1.0 crosses all
    of its 70 knees instead of 62. Noise covers the areas, for rounding is the same in every pixel of an even one, and
    does not average out: the noise floor of V3 Small at 320 px was then 13 dB off what other engines' order of
    summation gives. The first ones are the same whatever the count.
    """
    fours = -(-count // REFERENCE_PICTURES)
    return np.concatenate([_four(height, width, 2 * number) for number in range(fours)])[:count]


def in_fours(inputs: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """A reference's pictures, as many at a time as memory is reckoned for."""
    for start in range(0, len(next(iter(inputs.values()))), REFERENCE_PICTURES):
        yield {name: array[start : start + REFERENCE_PICTURES] for name, array in inputs.items()}


def joined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """The same arrays of several batches, one behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _four(height: int, width: int, offset: int) -> NDArray[np.uint8]:
    """``offset`` moves the seeds."""
    shown = pictures(REFERENCE_PICTURES, height, width, REFERENCE_SEED + offset)
    rng = np.random.Generator(np.random.PCG64(_SHAPES_SEED + offset))
    plain = np.stack([_rectangles(rng, height, width) for _ in range(2)])
    rows, columns = np.ogrid[: height // 4, : width // 4]
    plain[1, height - height // 4 :, width - width // 4 :] = ((rows // 2 + columns // 2) % 2 * 255)[..., None]
    plain += rng.integers(-_NOISE, _NOISE + 1, plain.shape, np.int64)
    shown[2:] = np.clip(plain, 0, 255)
    return shown


def _rectangles(rng: np.random.Generator, height: int, width: int) -> NDArray[np.int64]:
    """The same ones at every size, each up to half as high and as wide as the picture, one behind them all."""
    drawn = rng.integers(0, 256, (_SHAPES, 7), np.int64)
    shown = np.empty((height, width, 3), np.int64)
    shown[:] = drawn[0, :3]
    for y, x, tall, wide, *colour in drawn[1:]:
        top, left = y * height // 256, x * width // 256
        shown[top : top + 1 + tall * height // 512, left : left + 1 + wide * width // 512] = colour
    return shown
