"""Shares of pictures, and differences between them, with the intervals that hold them with 95%."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
_Z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95% confidence interval of a share, ``hits`` of ``count``.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212. It
    keeps its coverage near 0 and 1 and for few pictures, where the usual normal interval does not.
    """
    share, weight = hits / count, _Z * _Z / count
    spread = math.sqrt(share * (1 - share) * weight + weight * weight / 4)
    low, high = ((share + weight / 2 + side * spread) / (1 + weight) for side in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """How much smaller the share of true ones is in ``after`` than in ``before``, picture by picture, and its interval.

    It counts only pictures that one has right and the other wrong: with b of the one and c of the other kind among n,
    (b - c) / n and Wald's interval with Agresti and Min's half a picture added to each kind ("Simple improved
    confidence intervals for comparing matched proportions", 2005).
    """
    count, lost, won = len(before), int((before & ~after).sum()), int((after & ~before).sum())
    b, c, n = lost + 0.5, won + 0.5, count + 2
    middle, spread = (b - c) / n, _Z * math.sqrt(max(b + c - (b - c) ** 2 / n, 0.0)) / n
    return (lost - won) / count, (max(middle - spread, -1.0), min(middle + spread, 1.0))
