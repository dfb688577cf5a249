"""How far chance alone may set apart the noise of two engines that round in the same precision, each its own way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mbexport import thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mbexport.manifest import OutputContract


def chance_db(output: OutputContract, truth: NDArray[Any]) -> float:
    """By how many dB one engine's SQNR may stand under another's for no reason, on an output like ``truth``.

    The noise of an answer is a sum of squares: over a thousand classes it comes out nearly the same whoever rounds, of
    a single number it is a matter of luck. The ratio of two such sums of n squares has the F distribution with n and n
    degrees of freedom, of which this is the quantile (Abramowitz and Stegun, 26.6.16). n are the numbers of all
    pictures, less the one that centring takes from each; noise comes to the classes through the same last features,
    so a picture counts for :data:`thresholds.NOISE_FREEDOMS` at most. ``inf`` where the output is a single number.
    """
    pictures, *others = truth.shape
    values = math.prod(others)
    if output.kind != "features" and values > 1:
        values -= 1
    freedoms: float = pictures / (1 / values + 1 / thresholds.NOISE_FREEDOMS)
    if freedoms <= 1:
        return math.inf
    z, h = thresholds.CHANCE_DEVIATIONS, freedoms - 1
    half_log_ratio = z * math.sqrt(h + (z * z - 3) / 6) / h
    return 20 * half_log_ratio / math.log(10)
