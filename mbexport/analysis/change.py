"""Whether a latency changed: the processes' p50s of one row, measured twice.

The processes are the units, not their samples: within a process samples share their luck and fix its p50 to a fraction
of a percent, while the p50s of processes differ by 1% to 30%. Whatever disturbs a process makes it slower, never
faster, so what is compared is the quieter half of each side, and the interval comes from order statistics, which
assume no distribution. Processes that differ by more than a quiet machine's also tell that the machine as a whole may
have moved between the two runs, all processes of a run together, which no test of these processes can see: then the
change has to exceed that too.
benchmarks/diff_power.py has SciPy's tests beside it: with five processes, of which one in five is disturbed, they keep
to 1 false alarm in 100 too, but lose 20 to 35 of 100 slowdowns of 10%.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING, Literal

import msgspec

from mbexport.thresholds import (
    DIFF_MIN_PROCESSES,
    DIFF_MOST_RUN_TO_RUN_SHARE,
    DIFF_RUN_TO_RUN_SHARE,
    NOISY_BETWEEN_SHARE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ChangeVerdict = Literal["faster", "slower", "same", "too noisy to tell"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How B's p50 stands to A's."""

    ratio: float
    """B over A; above 1 is slower. Of the quieter half of each side's processes."""
    ratio_ci: tuple[float, float] | None
    """Where the ratio may lie; None where a side has too few processes."""
    verdict: ChangeVerdict
    reason: str | None = None
    """Why it cannot be told."""


def change_of(a_s: Sequence[float], b_s: Sequence[float], threshold: float) -> Change:
    """Compare two sides' processes.

    The ratio is that of the geometric means of the lower half of each side. The interval runs from B's least over the
    greatest of A's lower half to the greatest of B's lower half over A's least (of three processes, the greatest of
    all). It is wider for what two runs may differ as a whole: a little where the processes of both sides agree, all but
    one, and where they do not by as much as those of the less steady side. To exclude 1 by chance alone, all five
    processes of one side must exceed three of the other's: 21 of 252 orders on each side. So it holds in 83 of 100,
    whatever the noise within a run, and in 94 to 98 where undisturbed processes differ by 1% to 2%. Verdicts ask for a
    ratio beyond the threshold besides.

    Args:
        a_s: the p50 of each of A's processes in seconds (or in any one unit), above 0.
        b_s: the same of B.
        threshold: as a fraction of 1; ``faster`` and ``slower`` are beyond it.

    Returns:
        ``slower`` where the ratio exceeds the threshold and the interval 1, ``faster`` the other way round, ``same``
        where the whole interval lies within the threshold, and else that it is too noisy to tell.
    """
    a, b = sorted(a_s), sorted(b_s)
    ratio = geometric_mean(_quiet(b)) / geometric_mean(_quiet(a))
    if min(len(a), len(b)) < DIFF_MIN_PROCESSES:
        few = f"{len(a)} and {len(b)} processes; how far they differ is known from {DIFF_MIN_PROCESSES} on"
        return Change(ratio=ratio, ratio_ci=None, verdict="too noisy to tell", reason=few)
    wider, most = 1 + _run_to_run(a, b), 1 + threshold
    low, high = b[0] / _bound(a) / wider, _bound(b) / a[0] * wider
    if ratio > most * wider and low > 1:
        return Change(ratio=ratio, ratio_ci=(low, high), verdict="slower")
    if 1 / ratio > most * wider and high < 1:
        return Change(ratio=ratio, ratio_ci=(low, high), verdict="faster")
    if 1 / most <= low and high <= most:
        return Change(ratio=ratio, ratio_ci=(low, high), verdict="same")
    spreads = f"the processes' p50 differ by {_spread(a):.0%} in A and {_spread(b):.0%} in B"
    reason = f"{low - 1:+.1%} to {high - 1:+.1%}, so {threshold * 100:.3g}% is neither shown nor ruled out; {spreads}"
    return Change(ratio=ratio, ratio_ci=(low, high), verdict="too noisy to tell", reason=reason)


def _quiet(ascending: Sequence[float]) -> Sequence[float]:
    """The lower half, the middle included."""
    return ascending[: (len(ascending) + 1) // 2]


def _bound(ascending: Sequence[float]) -> float:
    """The greatest of the lower half, but at least the third: of three, the greatest."""
    return ascending[max(DIFF_MIN_PROCESSES, len(_quiet(ascending))) - 1]


def _run_to_run(a: Sequence[float], b: Sequence[float]) -> float:
    """How far two runs may differ as a whole, as a share: by what the processes of the less steady side do.

    One of five may be hit by chance and does not count.
    """
    spread = max(_spread(side[:-1] if len(side) > DIFF_MIN_PROCESSES + 1 else side) for side in (a, b))
    return DIFF_RUN_TO_RUN_SHARE if spread <= NOISY_BETWEEN_SHARE else min(spread, DIFF_MOST_RUN_TO_RUN_SHARE)


def _spread(ascending: Sequence[float]) -> float:
    return ascending[-1] / ascending[0] - 1
