"""What reaches a product and what should leave it, at a sample of places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mbexport.quantize.network import Product

_MOST_NUMBERS = 12_000_000
"""Input numbers in a sample: 50 MB of float32."""
_MOST_PLACES = 20_000


@dataclass(frozen=True)
class Samples:
    """Inputs (places, groups, inputs) and the right outputs (places, groups, outputs), picture after picture.

    Both without their means: a bias makes up for those.
    """

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Of the inputs, (groups, inputs, inputs)."""
        return self._moment(self.inputs, self.inputs)

    @cached_property
    def cross(self) -> NDArray[np.float64]:
        """Of outputs with inputs, (groups, outputs, inputs)."""
        return self._moment(self.outputs, self.inputs)

    def error(self, kernel: NDArray[np.float64]) -> float:
        """Mean squared error of a kernel (groups, outputs, inputs), but for what no kernel changes.

        From the moments alone: E|y - Wx|^2 - E|y|^2 = W E[xx] W - 2 W.E[yx].
        """
        return float(((kernel @ self.covariance) * kernel).sum() - 2 * (kernel * self.cross).sum())

    def halves(self) -> tuple[Samples, Samples]:
        """The first and the second half of the pictures."""
        middle = len(self.inputs) // 2
        parts = slice(middle), slice(middle, None)
        one, other = (Samples(self.inputs[part], self.outputs[part]) for part in parts)
        return one, other

    def _moment(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
        by_group = one.transpose(1, 2, 0) @ other.transpose(1, 0, 2)
        return by_group.astype(np.float64) / len(one)


def take(
    product: Product, inputs: Sequence[NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]], seed: int = 0
) -> Samples:
    """Draw places of the output maps, the same number in each picture, and gather what the kernel covers there.

    Args:
        product: whose inputs and outputs they are.
        inputs: batches (pictures, channels, height, width) or (pictures, channels) as the product reads them.
        outputs: the batches that it should give.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    pictures = sum(len(batch) for batch in outputs)
    numbers_each = product.groups * product.kernel[0].size
    places = min(_MOST_PLACES, _MOST_NUMBERS // numbers_each)
    each = max(1, min(places // pictures, outputs[0][0, 0].size))
    drawn = [_gathered(product, _maps(x), _maps(y), each, random) for x, y in zip(inputs, outputs, strict=True)]
    seen, wanted = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    seen -= seen.mean(axis=0, dtype=np.float64).astype(np.float32)
    wanted -= wanted.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Samples(seen, wanted)


def _maps(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    return batch if batch.ndim == 4 else batch[:, :, None, None]


def _gathered(
    product: Product, x: NDArray[np.float32], y: NDArray[np.float32], each: int, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    (top, left, bottom, right), stride = product.integers("pads", [0] * 4), product.integers("strides", [1, 1])
    spread = product.integers("dilations", [1, 1])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    pictures, _, height, width = y.shape
    picture = np.repeat(np.arange(pictures), each)
    place = np.concatenate([random.choice(height * width, each, replace=False) for _ in range(pictures)])
    row, column = np.divmod(place, width)
    taps = [
        padded[picture, :, row * stride[0] + down * spread[0], column * stride[1] + across * spread[1]]
        for down in range(product.kernel.shape[2])
        for across in range(product.kernel.shape[3])
    ]
    seen = np.stack(taps, axis=-1)  # (places, channels, taps)
    groups = product.groups
    return seen.reshape(len(seen), groups, -1), y[picture, :, row, column].reshape(len(seen), groups, -1)
