"""How far chance alone may set apart the noise of two engines that round in the same precision, each its own way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mbexport import thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mbexport.manifest import OutputContract, OutputKind


def free_numbers(kind: OutputKind, sides: Sequence[int]) -> int:
    """How many numbers the answer to one picture holds, less the one that centring takes from classes.

    ``sides`` is the output's shape without the batch.
    """
    values = math.prod(sides)
    return values - 1 if kind != "features" and values > 1 else values


def chance_db(output: OutputContract, truth: NDArray[Any]) -> float:
    """By how many dB one engine's SQNR may stand under another's for no reason, on an output like ``truth``.

    The noise of an answer is a sum of squares: over a thousand classes it comes out nearly the same whoever rounds, of
    a single number it is a matter of luck. The ratio of two such sums of n squares has the F distribution with n and n
    degrees of freedom, of which this is the quantile (Abramowitz and Stegun, 26.6.16). n are the free numbers of all
    pictures; noise comes to the classes through the same last features, so a picture counts for
    :data:`thresholds.NOISE_FREEDOMS` at most. ``inf`` where the output is a single number.
    """
    pictures, *sides = truth.shape
    freedoms: float = pictures / (1 / free_numbers(output.kind, sides) + 1 / thresholds.NOISE_FREEDOMS)
    if freedoms <= 1:
        return math.inf
    z, h = thresholds.CHANCE_DEVIATIONS, freedoms - 1
    half_log_ratio = z * math.sqrt(h + (z * z - 3) / 6) / h
    return 20 * half_log_ratio / math.log(10)
