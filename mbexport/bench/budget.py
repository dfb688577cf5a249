"""How long each process measures: what its percentiles need, or a share of a time budget."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from mbexport import thresholds
from mbexport.bench import statistics
from mbexport.bench.timing import Limits
from mbexport.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.bench.plan import WorkerAnswer

_START_S = 1.0
"""What a process takes besides measuring, until one has shown it: starting, loading, warming up."""
_LEAST_MEASURED_S = 0.05
"""A process that measures for less has little more than its own warm-up to say."""
_UNEVEN_SHARE = 0.5
"""Of one row's longest measuring process: one that measured for less hardly counts among the pooled samples."""
_MOST_H = 24
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """``60s``, ``5m``, ``1h`` or plain seconds.

    Raises:
        InputError: anything else, no time at all, or more than a day.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    most_s = _MOST_H * _UNITS_S["h"]
    if not found or found[2] not in _UNITS_S or not 0 < float(found[1]) * _UNITS_S[found[2]] <= most_s:
        raise InputError(f"a budget must be a time such as 60s, 5m or 1h, and at most {_MOST_H}h, not {text!r}")
    return float(found[1]) * _UNITS_S[found[2]]


def reserved(budget_s: float | None, rows: int, starts: int) -> float | None:
    """The budget without what so many starts of each row take, which measure nothing else."""
    return None if budget_s is None else budget_s - rows * starts * _START_S


def replicates_for(budget_s: float | None, rows: int) -> int:
    """Processes for each row: as many as usual, or as few as still tell how far processes differ.

    Raises:
        InputError: not even those fit into the budget.
    """
    if budget_s is None:
        return thresholds.BENCH_REPLICATES
    for replicates in range(thresholds.BENCH_REPLICATES, thresholds.BENCH_LEAST_REPLICATES - 1, -1):
        if budget_s >= replicates * rows * (_START_S + _LEAST_MEASURED_S):
            return replicates
    least_s = thresholds.BENCH_LEAST_REPLICATES * rows * (_START_S + _LEAST_MEASURED_S)
    raise InputError(
        f"the budget is {math.ceil(least_s - budget_s)} s too small for {rows} rows of "
        f"{thresholds.BENCH_LEAST_REPLICATES} processes; give more, or fewer rows"
    )


def planned_limits(shared_s: float | None, rows: int, replicates: int) -> Limits:
    """Of each process, where all of them are to run: what its percentiles need, or its share of a budget.

    Args:
        shared_s: what of the budget all processes share, as :func:`reserved` says; None without one.
        rows: all rows, finished or not.
        replicates: processes for each row.
    """
    if shared_s is None:
        return Limits(math.ceil(thresholds.BENCH_MIN_SAMPLES / replicates))
    return _for_seconds(_share_s(shared_s, rows * replicates, _START_S))


def measured_s(answer: WorkerAnswer) -> float:
    """How long the process's measured loop took, from its samples."""
    return sum(answer.replicate.samples_ns) * 1e-9 / answer.concurrency


def uneven_reason(times_s: Sequence[float]) -> str | None:
    """Why a row of processes that measured so long cannot be trusted; None where they measured about as long."""
    longest_s = max(times_s)
    short = [time_s for time_s in times_s if time_s < _UNEVEN_SHARE * longest_s]
    if not short:
        return None
    return (
        f"{len(short)} of {len(times_s)} processes measured for less than half as long as the longest "
        f"({min(short):.2g} s against {longest_s:.2g} s)"
    )


class BudgetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget is to buy, said before measuring; the names are the keys of the JSON report. Times in seconds.

    It counts one second a process for starting, loading and warming up. Where that takes more, later processes measure
    for less; where it takes less, the bench ends earlier. A row whose calls take no longer than ``p99_up_to_s`` gets
    the samples that its p99 needs; its p50 is always told, but beyond ``p50_up_to_s`` on fewer samples than the same
    rule asks for.
    """

    budget_s: float
    rows: int
    """Those that are not finished yet."""
    processes_per_row: int
    processes: int
    """Still to run, for all these rows: fewer where an earlier bench was stopped."""
    measuring_s: float
    """In each process."""
    p50_up_to_s: float
    p90_up_to_s: float
    p99_up_to_s: float


def plan_budget(
    budget_s: float, measuring_s: float, replicates: int, kept_s: Sequence[Sequence[float]], callers: int = 1
) -> BudgetPlan | None:
    """What to expect of the processes that are still to run; None where there are none.

    Args:
        budget_s: as it was asked for.
        measuring_s: in each process, as :func:`planned_limits` says.
        replicates: processes for each row.
        kept_s: for each row, how long those of its processes measured that an earlier bench ran.
        callers: at once, at least; each makes its own calls.
    """
    unfinished = [kept for kept in kept_s if len(kept) < replicates]
    if not unfinished:
        return None
    least_s = min(sum(kept) + (replicates - len(kept)) * measuring_s for kept in unfinished)
    return BudgetPlan(
        budget_s=budget_s,
        rows=len(unfinished),
        processes_per_row=replicates,
        processes=sum(replicates - len(kept) for kept in unfinished),
        measuring_s=measuring_s,
        p50_up_to_s=callers * least_s / statistics.min_samples(0.5),
        p90_up_to_s=callers * least_s / statistics.min_samples(0.9),
        p99_up_to_s=callers * least_s / statistics.min_samples(0.99),
    )


@dataclass
class Budget:
    """What is left of the time. Tell it how long each process took."""

    total_s: float | None
    processes: int
    """Still to run."""
    planned: Limits
    """Of each process. None gets more: one that started sooner leaves its time to those that take longer."""
    _spent_s: float = field(default=0.0, init=False)
    _others_s: list[float] = field(default_factory=list, init=False)
    """What each process took besides measuring."""

    def limits(self) -> Limits:
        """Of the next process: what was planned, or its share of what is left of the budget where that is less."""
        if self.total_s is None:
            return self.planned
        other_s = sum(self._others_s) / len(self._others_s) if self._others_s else _START_S
        return _for_seconds(
            min(self.planned.max_time_s, _share_s(self.total_s - self._spent_s, self.processes, other_s))
        )

    def spent(self, wall_s: float, measured_s: float) -> None:
        """A process took ``wall_s``, of which its measured loops took ``measured_s``."""
        self.processes -= 1
        self._spent_s += wall_s
        self._others_s.append(max(0.0, wall_s - measured_s))

    def left_s(self) -> float | None:
        """Until the end, from what the processes so far took on average; None before the first."""
        done = len(self._others_s)
        return self._spent_s / done * self.processes if done else None


def _for_seconds(time_s: float) -> Limits:
    return Limits(min_samples=1, min_time_s=time_s, max_time_s=time_s)


def _share_s(left_s: float, processes: int, other_s: float) -> float:
    """How long each process may measure that takes ``other_s`` besides."""
    return max(_LEAST_MEASURED_S, left_s / max(processes, 1) - other_s)
