"""A latency as a sum of costs, each with a rate that may not be negative, and an interval around it.

The rates are those with the least squares of relative errors: a network of 0.5 ms counts as much as one of 15 ms. The
interval comes from leaving out, not from the fit: each network is predicted by a fit of all the others, and it is as
wide as it takes to hold nine of ten of these errors (the jackknife of Barber et al., "Predictive inference with the
jackknife+", 2021, on log errors, centred on the fit).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

INTERVAL_SHARE = 0.9


def predicted_s(terms: Vector, medians_s: Vector, wanted: Vector) -> tuple[float, float]:
    """Seconds for the terms ``wanted``, and the factor by which the interval goes up and down from there.

    Args:
        terms: (networks, terms), none negative; the work that each measured network does.
        medians_s: (networks,), what was measured; nine or more, so that nine of ten errors can be told.
        wanted: (terms,).
    """
    import numpy as np

    count = len(medians_s)
    everyone = np.arange(count)
    left_out = [terms[index] @ _rates(terms[everyone != index], medians_s[everyone != index]) for index in everyone]
    errors = np.sort(np.abs(np.log(np.array(left_out) / medians_s)))
    rank = math.ceil((count + 1) * INTERVAL_SHARE)
    return float(wanted @ _rates(terms, medians_s)), float(np.exp(errors[min(rank, count) - 1]))


def _rates(terms: Vector, medians_s: Vector) -> Vector:
    """Seconds per unit of each term, none negative, with the least squares of relative errors."""
    import numpy as np
    from scipy.optimize import nnls

    relative = terms / medians_s[:, None]
    scale = np.where(relative.any(axis=0), relative.max(axis=0), 1.0)
    rates: Vector = nnls(relative / scale, np.ones(len(medians_s)))[0] / scale
    return rates
