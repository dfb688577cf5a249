"""The three rungs: which candidates enter each, how long their processes measure, and which go on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mbexport.bench.timing import Limits
from mbexport.errors import EngineError, InputError
from mbexport.thresholds import BENCH_LEAST_REPLICATES
from mbexport.tune.candidates import first_candidates, with_options
from mbexport.tune.choice import chosen
from mbexport.tune.halving import LATE, MOST_ROUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.profile import Hardware, ThreadPlan
    from mbexport.tune.accuracy import Judged
    from mbexport.tune.candidates import Candidate
    from mbexport.tune.choice import Choice
    from mbexport.tune.halving import Tournament

_FIRST, _SECOND, _THIRD = 0.45, 0.65, 0.98
"""Shares of the budget after which each rung should be over."""
_SHORT, _LONGER = Limits(10, 0.12, 0.3), Limits(30, 0.4, 1.0)
_LAST, _LAST_P99 = Limits(50, 0.6, 2.0), Limits(138, 0.6, 4.0)
"""What each process measures in the first rung, the second and the last; five with the last one's hold a p99."""
_KEPT = 3
"""One in so many goes on from the first rung."""
_FINALISTS = 3
"""Of those that are there for their time; float32 stands beside them."""


def play(
    games: Tournament, judged: Sequence[Judged], plan: ThreadPlan, machine: Hardware, threads: int | None
) -> Choice:
    """Time the variants inside the limit. Engine options join in the second rung, for they change far less than what
    the first one is about.

    Args:
        games: that has not begun.
        judged: the variants.
        plan: how many threads are usual here, and the most.
        machine: what this machine is.
        threads: the only number to try, or None.

    Raises:
        EngineError: nothing in float32 could be timed.
        InputError: the time for a rung was spent before float32 was timed, or the last one often enough to decide.
    """
    entered = first_candidates(judged, games.objective, plan, threads)
    plain = [one for one in entered if _is_plain(one, threads or plan.threads)]
    ranked = games.rung(entered, _SHORT, 2, _FIRST)  # the better of two counts: a neighbour may have disturbed one
    kept = _survivors(games, ranked, plain, max(_FINALISTS, math.ceil(len(ranked) / _KEPT)))
    optional = [other for one in kept[:_FINALISTS] + _best_float32(kept) for other in with_options(one, machine)]
    ranked = games.rung(dict.fromkeys([*kept, *optional]), _LONGER, 2, _SECOND)
    _require_float32(games, ranked)
    finalists = _finalists(games, ranked, plain)
    games.drop([one for one in ranked if one not in finalists], ranked[0])
    games.rung(finalists, _LAST_P99 if games.objective == "p99" else _LAST, MOST_ROUNDS, _THIRD)
    return chosen(games, finalists, plain)


def _finalists(games: Tournament, ranked: Sequence[Candidate], plain: Sequence[Candidate]) -> list[Candidate]:
    """The fastest and the best in float32, then as many of the next as there is time for; each with what it has to be
    compared with: the same without options, and float32 as it runs by default on the same runtime.
    """

    def company(one: Candidate) -> list[Candidate]:
        defaults = [other for other in plain if other.variant.target == one.variant.target]
        return [other for other in (one, one.without_options, *defaults) if other in ranked]

    best32, *second32 = _best_float32(ranked)
    found = list(dict.fromkeys([*company(ranked[0]), *company(best32)]))
    for one in [*second32, *ranked[1:_FINALISTS]]:
        more = list(dict.fromkeys([*found, *company(one)]))
        if games.rounds_affordable(len(more)) <= BENCH_LEAST_REPLICATES:  # one to spare: they measure for longer
            break
        found = more
    return found


def _survivors(
    games: Tournament, ranked: Sequence[Candidate], plain: Sequence[Candidate], count: int
) -> list[Candidate]:
    """The fastest ``count``, the best two in float32, and float32 as it runs by default, on the same runtimes."""
    _require_float32(games, ranked)
    kept = [*ranked[:count], *_best_float32(ranked)]
    targets = {one.variant.target for one in kept}
    kept += [one for one in plain if one.variant.target in targets and one in games.timed]
    kept = list(dict.fromkeys(kept))
    games.drop([one for one in ranked if one not in kept], ranked[0])
    return kept


def _require_float32(games: Tournament, ranked: Sequence[Candidate]) -> None:
    """Raises:
    EngineError: nothing in float32 could be timed.
    InputError: there was no time for it.
    """
    if _best_float32(ranked):
        return
    outcomes = [(one, why) for one, why in reversed(games.outcomes.items()) if one.variant.is_float32]
    if any(why == LATE for _, why in outcomes):
        raise InputError(
            f"the budget of {games.deadline.budget_s:g} s was spent before float32 was timed; "
            "give a larger --budget, or fewer runtimes (--runtime)"
        )
    one, reason = outcomes[0]
    raise EngineError(f"nothing in float32 could be timed; {one.variant.target}: {reason}")


def _best_float32(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Two, for the first of a short rung need not be the best, and the gain is told over the best."""
    return [one for one in ranked if one.variant.is_float32][:2]


def _is_plain(candidate: Candidate, threads: int) -> bool:
    """Whether it is what the artifact does in float32 with nothing chosen."""
    usual = candidate.threads == threads and candidate.callers == 1 and not candidate.options
    return usual and candidate.variant.is_float32 and candidate.variant.is_own
