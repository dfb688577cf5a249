"""From the last rung's processes to one configuration, and the record of all that were tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbexport.bench import statistics
from mbexport.errors import EngineError, InputError
from mbexport.thresholds import BENCH_LEAST_REPLICATES
from mbexport.tune.candidates import Candidate
from mbexport.tune.halving import LATE, Timed
from mbexport.tune.timing import P90, P99, cost_s, p50_interval_s, ratio_of, tail_share
from mbexport.tuned import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.tune.accuracy import Accuracies
    from mbexport.tune.halving import Tournament
    from mbexport.tune.variants import Variant
    from mbexport.tuned import Configuration, Ratio


@dataclass(frozen=True)
class Choice:
    """The configuration, and what it was compared with."""

    games: Tournament
    best: Candidate
    go: bool
    over_float32: Ratio
    over_defaults: Ratio | None
    """None where float32 at the defaults of the same runtime was not in the last rung."""
    tail: float = P99
    """The percentile that stood for p99."""
    notes: list[str] = field(default_factory=list)


def chosen(games: Tournament, finalists: Sequence[Candidate], plain: Sequence[Candidate]) -> Choice:
    """The fastest of the last rung, but nothing is given up for a gain that the noise could have made: a narrower
    precision has to be faster than float32's best, and options faster than the same without them, by their intervals.

    Args:
        games: with the last rung's processes.
        finalists: that were in it.
        plain: float32 as it runs by default.

    Raises:
        EngineError: nothing in float32 was left in the last rung.
        InputError: the budget ended before the rounds that a decision needs.
    """
    there = [one for one in finalists if one in games.timed and one not in games.outcomes]
    _require_rounds(games, finalists, there)
    answers = {one: games.timed[one].answers for one in there}
    tail = tail_share(list(answers.values()))

    def cost(candidate: Candidate) -> float:
        return cost_s(answers[candidate], games.objective, tail)

    def ratio(slow: Candidate, fast: Candidate) -> Ratio:
        return ratio_of(answers[slow], answers[fast], games.objective, tail)

    def is_faster(fast: Candidate, slow: Candidate) -> bool:
        return ratio(slow, fast).ci[0] > 1

    def is_narrower(one: Candidate) -> bool:
        """By what the engine computed in: one that widens an int8 file to float32 gives nothing for its loss."""
        return answers[one][0].precision != "f32"

    def settled(fastest: Candidate) -> Candidate:
        usual = fastest.without_options
        return usual if usual in answers and not is_faster(fastest, usual) else fastest

    in_float32 = sorted((one for one in there if one.variant.is_float32), key=cost)
    if not in_float32:
        why = next(why for one, why in games.outcomes.items() if one in finalists and one.variant.is_float32)
        raise EngineError(f"nothing in float32 could be timed in the last rung; {why}")
    best32 = in_float32[0]
    narrower = [settled(one) for one in sorted(there, key=cost) if is_narrower(one)]
    best = next((one for one in narrower[:1] if is_faster(one, best32)), settled(best32))
    defaults = [one for one in plain if one in answers and one.variant.target == best.variant.target]
    for one in there:
        games.outcomes[one] = _outcome(one, best, ratio(one, best))
        if not one.variant.is_float32 and not is_narrower(one):
            games.outcomes[one] += "; the engine computes it in float32"
    return Choice(
        games=games,
        best=best,
        go=is_narrower(best),
        over_float32=ratio(best32, best),
        over_defaults=ratio(defaults[0], best) if defaults else None,
        tail=tail,
        notes=list(_notes(games, tail)),
    )


def trials_of(choice: Choice, accuracies: Accuracies) -> list[Trial]:
    """All that were considered: the chosen one, then by the rung that they reached and their time, then the untimed."""
    judged = {each.variant: each for each in accuracies.judged}
    found = []
    for candidate, outcome in choice.games.outcomes.items():
        each = judged[candidate.variant]
        timed = choice.games.timed.get(candidate, Timed(0))
        trial = Trial(
            configuration=candidate.configuration,
            precision=timed.answers[0].precision if timed.answers else each.precision,
            accuracy=each.check,
            outcome=outcome,
            **_figures(timed),
        )
        cost = cost_s(timed.answers, choice.games.objective, choice.tail) if timed.answers else 0.0
        found.append((candidate != choice.best, -trial.rung, cost, trial))
    unfit = [
        Trial(
            configuration=_untimed(each.variant),
            precision=each.precision,
            accuracy=each.check,
            outcome=each.check.fault or "",
        )
        for each in accuracies.judged
        if not each.check.inside
    ]
    failed = [
        Trial(configuration=_untimed(variant), precision="-", accuracy=None, outcome=reason)
        for variant, reason in accuracies.failed.items()
    ]
    return [*(entry[3] for entry in sorted(found, key=lambda entry: entry[:3])), *unfit, *failed]


def _figures(timed: Timed) -> dict[str, Any]:
    """Of a candidate's last rung."""
    groups_s = [[sample * 1e-9 for sample in answer.replicate.samples_ns] for answer in timed.answers]
    if not groups_s:
        return {}
    samples_s = [sample for group_s in groups_s for sample in group_s]
    return {
        "rung": timed.rung,
        "processes": len(groups_s),
        "p50_s": statistics.median(samples_s),
        "p50_ci_s": p50_interval_s(timed.answers),
        "p99_s": statistics.percentile(samples_s, 0.99),
        "throughput_per_s": 1 / cost_s(timed.answers, "throughput"),
    }


def _untimed(variant: Variant) -> Configuration:
    """That was not worth timing, so that threads and the like do not matter."""
    return Candidate(variant, threads=1, callers=1, batch=variant.artifact.manifest.export.batch or 1).configuration


def _outcome(candidate: Candidate, best: Candidate, times: Ratio) -> str:
    if candidate == best:
        return "chosen"
    low, high = times.ci
    return f"{times.value:.2f} x the chosen one's time [{low:.2f}, {high:.2f}]"


def _require_rounds(games: Tournament, finalists: Sequence[Candidate], there: Sequence[Candidate]) -> None:
    """Raises:
    InputError: the time was spent before the rounds that a decision needs.
    """
    rounds = min((len(games.timed[one].answers) for one in there), default=0)
    late = any(games.outcomes.get(one) == LATE for one in finalists)
    if (there or late) and rounds < BENCH_LEAST_REPLICATES:
        raise InputError(
            f"the budget of {games.deadline.budget_s:g} s was spent after {rounds} of the {BENCH_LEAST_REPLICATES} "
            "rounds that a decision needs; nothing was stored; give a larger --budget, fewer runtimes (--runtime), or "
            "a quieter machine"
        )


def _notes(games: Tournament, tail: float) -> Iterator[str]:
    if games.objective == "p99" and tail < P99:
        told = "p50" if tail < P90 else "p90"
        yield f"too few samples for p99 in the last rung, so {told} decided; give a larger --budget"
