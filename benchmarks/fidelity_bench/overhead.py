"""What the harness adds to each call: the loop around a call that does nothing."""

from __future__ import annotations

import itertools
import statistics

from mbexport.bench.timing import Limits, time_calls

BAR_S = 20e-6


def overhead_s(rounds: int = 9) -> float:
    """Seconds of wall clock a call, of which a part is in the sample itself. The median round."""
    found = []
    for _ in range(rounds):
        samples_ns, wall_ns = time_calls(itertools.repeat(_nothing), Limits(1, min_time_s=0.1))
        found.append(wall_ns * 1e-9 / len(samples_ns))
    return statistics.median(found)


def _nothing() -> None:
    pass
