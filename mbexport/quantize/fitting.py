"""Weights for inputs that were rounded: refitted to the float network's answers, then rounded one input at a time.

A product sees inputs that differ from the float network's by what was rounded and clipped before it. The weights that
come nearest to the float network's answers on such inputs are a least-squares problem with a closed solution. Rounding
them one input at a time, each time letting the inputs not yet rounded make up for it, is E. Frantar et al., "GPTQ",
ICLR 2023 (after optimal brain surgeon); only the inputs' covariance is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbexport.accuracy.precisions import ROUNDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mbexport.quantize.samples import Samples

_RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Ridges that are tried, in shares of the inputs' mean variance."""
_DAMPING = 0.01
_BLOCK = 64
"""Inputs that are rounded before the rest makes up for them all at once, which spares memory traffic."""
_CLIPS = np.linspace(1, 0.7, 13)
MAX_BIAS = 2**30
"""Biases are stored in 32 bits, in units of input scale times weight scale."""


@dataclass(frozen=True)
class FloatWeights:
    """Weights of a product that stays in float32, like its kernel, and its bias."""

    as_float: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """Signed 8-bit weights of a product, like its kernel, their scales by output, and its bias."""

    kernel: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def as_float(self) -> NDArray[np.float32]:
        """What the weights stand for."""
        return self.kernel.astype(np.float32) * self.scale.reshape(-1, 1, 1, 1)


def refitted(kernel: NDArray[np.float64], samples: Samples) -> NDArray[np.float64]:
    """The kernel (groups, outputs, inputs) that comes nearest to the truth on rounded inputs, as far as it generalises.

    How far it may leave the float kernel is settled on held-out pictures; where no step helps there, it stays.
    """
    one, other = samples.halves()
    best, best_error = kernel, other.error(kernel) + one.error(kernel)
    for ridge in _RIDGES:
        error = other.error(_solved(kernel, one, ridge)) + one.error(_solved(kernel, other, ridge))
        if error < best_error:
            best, best_error = _solved(kernel, samples, ridge), error
    return best


def rounded(
    kernel: NDArray[np.float64], covariance: NDArray[np.float64], levels: int, least_scale: NDArray[np.float64]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A kernel (groups, outputs, inputs) in whole steps of -levels..levels, and the scales (groups, outputs).

    Args:
        kernel: in float64.
        covariance: of the inputs, (groups, inputs, inputs).
        levels: 127, or 63 where an instruction set would saturate.
        least_scale: (groups, outputs).
    """
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    scale = np.maximum(_scales(kernel, variances, levels), least_scale)[..., None]

    def nearest(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.clip(np.rint(numbers / scale), -levels, levels) * scale)

    steps = np.rint(_one_at_a_time(kernel, covariance, nearest) / scale)
    return steps.astype(np.int8), scale[..., 0].astype(np.float32)


def rounded_to_bf16(kernel: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same in numbers that bf16 holds; see :func:`rounded`."""
    return _one_at_a_time(kernel, covariance, lambda numbers: bf16(numbers.astype(np.float32)).astype(np.float64))


def bf16(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest that bf16 holds."""
    return ROUNDINGS["bf16"].constant(numbers, 0)


def _one_at_a_time(
    kernel: NDArray[np.float64],
    covariance: NDArray[np.float64],
    nearest: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """A kernel (groups, outputs, inputs) rounded by ``nearest``, which takes any inputs of it, one or all."""
    if not covariance.any():  # nothing can make up for anything
        return nearest(kernel)
    inputs = kernel.shape[2]
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    damping = np.maximum(_DAMPING * variances.mean(axis=1), 1e-12)
    inverse = np.linalg.inv(covariance + damping[:, None, None] * np.eye(inputs))
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    left, found = kernel.copy(), np.zeros(kernel.shape)
    for start in range(0, inputs, _BLOCK):
        block = slice(start, min(start + _BLOCK, inputs))
        errors = np.zeros((*kernel.shape[:2], block.stop - start))
        for at in range(start, block.stop):
            found[:, :, at] = nearest(left[:, :, at, None])[..., 0]
            errors[:, :, at - start] = (left[:, :, at] - found[:, :, at]) / upper[:, at, at, None]
            left[:, :, at + 1 : block.stop] -= errors[:, :, at - start, None] * upper[:, None, at, at + 1 : block.stop]
        left[:, :, block.stop :] -= errors @ upper[:, block, block.stop :]
    return found


def _solved(kernel: NDArray[np.float64], samples: Samples, ridge: float) -> NDArray[np.float64]:
    covariance = samples.covariance
    variance = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    inputs = covariance.shape[1]
    damped = covariance + np.maximum(ridge * variance, 1e-12)[:, None, None] * np.eye(inputs)
    missing = samples.cross - kernel @ covariance  # (groups, outputs, inputs)
    return np.asarray(kernel + np.linalg.solve(damped, missing.transpose(0, 2, 1)).transpose(0, 2, 1))


def _scales(kernel: NDArray[np.float64], variances: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """The scale of each output with the least error: clipping a few large weights may pay."""
    widest = np.abs(kernel).max(axis=2)
    best, best_error = np.zeros(widest.shape), np.full(widest.shape, np.inf)
    for clip in _CLIPS:
        scale = np.where(widest > 0, widest * clip, 1) / levels
        steps = np.clip(np.rint(kernel / scale[..., None]), -levels, levels)
        error = np.einsum("goi,gi->go", np.square(steps * scale[..., None] - kernel), variances)
        better = error < best_error
        best, best_error = np.where(better, scale, best), np.where(better, error, best_error)
    return best
