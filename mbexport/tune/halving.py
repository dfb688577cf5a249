"""Successive halving: all candidates are timed briefly, the best of them longer, and the last few until it is certain.

A rung is rounds of one process a candidate, in turns, so that what drifts in the machine drifts through all alike. Each
rung is judged by its own processes alone: those of the rung before are among the reasons why a candidate is still here,
and would flatter it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbexport.bench.plan import WorkerPlan
from mbexport.bench.process import run_worker
from mbexport.errors import EngineError, ProcessError
from mbexport.tune.timing import quick_cost_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mbexport.bench.plan import WorkerAnswer
    from mbexport.bench.timing import Limits
    from mbexport.tune.candidates import Candidate
    from mbexport.tuned import Objective

    Tell = Callable[[str], None]

MOST_ROUNDS = 9
LATE = "not timed: the time for this rung was spent"
_RECENT = 10


class Deadline:
    """How long there is."""

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._start_s = time.monotonic()

    def left_s(self, share: float = 1.0) -> float:
        """Until ``share`` of the budget is spent; negative beyond it."""
        return self._start_s + share * self.budget_s - time.monotonic()


@dataclass
class Timed:
    """A candidate's processes in the last rung that it reached."""

    rung: int
    answers: list[WorkerAnswer] = field(default_factory=list)


@dataclass
class Tournament:
    """What all candidates have shown so far."""

    objective: Objective
    deadline: Deadline
    tell: Tell
    timed: dict[Candidate, Timed] = field(default_factory=dict)
    outcomes: dict[Candidate, str] = field(default_factory=dict)
    """What became of those that are out."""
    _walls_s: list[float] = field(default_factory=list)
    """What each process took, from start to end."""
    _own_s: dict[Candidate, float] = field(default_factory=dict)
    """The same of each candidate's last one."""
    _rung: int = 0

    def rung(self, candidates: Iterable[Candidate], limits: Limits, rounds: int, until: float) -> list[Candidate]:
        """Time candidates in turns; those that were timed, the fastest first.

        The rung ends early where ``until`` of the budget is spent. What is not reached in the first round is out; later
        ones count whole or not at all, so that all were timed in the same ones.
        """
        self._rung += 1
        found = {candidate: Timed(self._rung) for candidate in candidates}
        began_s = self.deadline.left_s()
        for turn in range(rounds):
            self.tell(f"rung {self._rung}, round {turn + 1} of up to {rounds}, candidates: {len(found)}")
            if turn and self.deadline.left_s(until) < (began_s - self.deadline.left_s()) / turn:
                break
            self._round(found, limits, until)
        whole = min((len(timed.answers) for timed in found.values()), default=0)
        for timed in found.values():
            del timed.answers[whole:]
        self.timed |= found
        return sorted(found, key=self.quick_cost_s)

    def _round(self, found: dict[Candidate, Timed], limits: Limits, until: float) -> None:
        for candidate, timed in list(found.items()):
            if self.deadline.left_s(until) < self._expected_s(candidate):
                if timed.answers:
                    return
                self.outcomes[candidate] = LATE
                del found[candidate]
            elif not self._time(candidate, limits, timed):
                del found[candidate]

    def quick_cost_s(self, candidate: Candidate) -> float:
        return quick_cost_s(self.timed[candidate].answers, self.objective)

    def drop(self, candidates: Sequence[Candidate], best: Candidate) -> None:
        """These are out; the best one of their rung says why."""
        for candidate in candidates:
            times = self.quick_cost_s(candidate) / self.quick_cost_s(best)
            self.outcomes[candidate] = f"{times:.2f} x the time of the fastest in rung {self.timed[candidate].rung}"

    def rounds_affordable(self, candidates: int) -> int:
        """Rounds of so many candidates that fit into what is left, as long as the last processes have taken."""
        last_s = self._walls_s[-_RECENT:]
        typical_s = sum(last_s) / len(last_s)
        return math.floor(self.deadline.left_s() / (candidates * typical_s))

    def _expected_s(self, candidate: Candidate) -> float:
        """What its next process takes: what its last one took, or before its first as little as any did."""
        return self._own_s.get(candidate) or min(self._walls_s, default=0.0)

    def _time(self, candidate: Candidate, limits: Limits, timed: Timed) -> bool:
        """Whether its process measured."""
        began_s = time.monotonic()
        plan = WorkerPlan(
            cell=candidate.cell,
            min_samples=limits.min_samples,
            min_time_s=limits.min_time_s,
            max_time_s=limits.max_time_s,
        )
        try:
            timed.answers.append(run_worker(plan))
        except (EngineError, ProcessError) as error:
            self.outcomes[candidate] = f"could not be timed: {error}"
            return False
        self._own_s[candidate] = time.monotonic() - began_s
        self._walls_s.append(self._own_s[candidate])
        return True
