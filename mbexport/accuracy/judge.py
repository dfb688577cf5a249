"""A row of the report: what is asked of a runtime, and the worst of what came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbexport.accuracy.limits import Limits
from mbexport.accuracy.report import FlippedPicture, Precision, ValidationRow
from mbexport.accuracy.trial import Trial, Tried
from mbexport.compare import failure, standing
from mbexport.pictures import REFERENCE_PICTURES
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.accuracy.checks import Checks
    from mbexport.accuracy.probes import Probe
    from mbexport.artifact import Artifact
    from mbexport.quantities import Mode
    from mbexport.runtimes import SessionFacts

    Arrays = Mapping[str, NDArray[Any]]
    Observe = Callable[[Trial, Probe, Arrays], None]


@dataclass
class Judge:
    """Makes a row of each target in each mode."""

    artifact: Artifact
    checks: Checks
    probes: Sequence[Probe]
    threads: int | None
    observe: Observe | None
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        self.limits = Limits(self.artifact, self.checks.min_sqnr_db)

    def batches(self, probe: Probe) -> Sequence[int]:
        """The batch sizes that a probe is tried in, the largest first."""
        static = self.artifact.manifest.input.shape[0]
        if static is not None:
            return (static,)
        if not probe.own:
            return (min(len(probe.pictures), REFERENCE_PICTURES),)
        return tuple(dict.fromkeys(self.checks.batches or (len(probe.pictures), 1)))

    def row(self, target: str, mode: Mode) -> ValidationRow:
        trial = Trial(self.artifact, target, mode, self.threads, self.limits, self.observe)
        groups: dict[int, list[Probe]] = {}
        for probe in self.probes:
            for batch in self.batches(probe):
                groups.setdefault(batch, []).append(probe)
        for batch, probes in groups.items():
            trial.run(probes, batch)
        return self._row(target, mode, trial.tried, trial.facts)

    def refused(self, target: str, mode: Mode, fault: str) -> ValidationRow:
        """The row of an artifact that contradicts itself: no engine need be asked."""
        probe, output = self.probes[0], self.artifact.manifest.outputs[0].name
        limit = self.limits.of(probe, "f32", target, mode)[output]
        tried = Tried(probe, 1, output, failure(fault, limit.least_db), limit.origin)
        return self._row(target, mode, [tried], [])

    def _row(self, target: str, mode: Mode, tried: Sequence[Tried], seen: Sequence[SessionFacts]) -> ValidationRow:
        worst = min(tried, key=lambda one: standing(one.comparison))
        found, device = worst.comparison, split_target(target)[1]
        flips = _flips(tried)
        broken = {id(facts): list(self._broken_promises(mode, facts, device)) for facts in seen}
        facts = max(seen, key=lambda one: len(broken[id(one)]), default=None)
        faults = [*(broken[id(facts)] if facts else []), *self._too_many(flips)]
        reason = "; ".join([*faults, *([found.reason] if found.reason else [])])
        errors = [one.probability_error for one in tried if one.probability_error is not None]
        return ValidationRow(
            runtime=target,
            mode=mode,
            batch=worst.batch,
            precision=Precision(
                requested=self.artifact.manifest.precision if mode == "parity" else "default",
                effective=facts.precision if facts else None,
            ),
            placement=dict(facts.placement) if facts else {},
            sqnr_db=found.sqnr_db,
            max_abs_error=found.max_abs_error,
            mean_abs_error=found.mean_abs_error,
            abs_error_quantiles=dict(found.abs_error_quantiles) if found.abs_error_quantiles else None,
            probability_error=max(errors, default=None),
            cosine=found.cosine,
            top1_agreement=_least(one.comparison.top1_agreement for one in tried),
            top5_agreement=_least(one.comparison.top5_agreement for one in tried),
            flips=flips,
            threshold_db=found.threshold_db,
            threshold_origin=worst.origin,
            margin_db=None if found.sqnr_db is None else found.sqnr_db - found.threshold_db,
            fallback_ops=_strays(facts, device) if facts else {},
            passed=found.passed and not faults,
            reason=f"{reason}{_batch_alone(worst, tried)}{worst.probe.where}" if reason else None,
        )

    def _broken_promises(self, mode: Mode, facts: SessionFacts, device: str) -> Iterator[str]:
        asked = self.artifact.manifest.precision
        # A file of f16 numbers may be computed in float32: nothing is lost by that.
        if mode == "parity" and facts.precision not in {asked, "f32" if asked == "f16" else asked}:
            yield f"{asked} was asked for, the engine computed in {facts.precision}"
        if not self.checks.allow_fallback:
            for place, operators in _strays(facts, device).items():
                named = f" ({', '.join(operators)})" if operators else ""
                yield f"{facts.placement[place]} nodes ran on {place} instead of {device}{named}"

    def _too_many(self, flips: Sequence[FlippedPicture]) -> Iterator[str]:
        if self.checks.max_flips is not None and len(flips) > self.checks.max_flips:
            yield f"{len(flips)} predictions flipped, at most {self.checks.max_flips} may"


def _least(shares: Iterable[float | None]) -> float | None:
    return min((share for share in shares if share is not None), default=None)


def _batch_alone(worst: Tried, tried: Sequence[Tried]) -> str:
    """The batch size, where another one is right."""
    same = [one for one in tried if one.probe is worst.probe and one.output == worst.output]
    alone = not worst.comparison.passed and any(one.comparison.passed for one in same)
    return f" in batches of {worst.batch}" if alone else ""


def _strays(facts: SessionFacts, device: str) -> dict[str, list[str]]:
    """Device -> operators, of the nodes that ran elsewhere than asked."""
    if device == "auto":
        return {}
    # "gpu" stands for the first GPU, which its engine may call gpu.0.
    return {
        place: list(facts.operators.get(place, ()))
        for place in facts.placement
        if place != device and not place.startswith(f"{device}.")
    }


def _flips(tried: Sequence[Tried]) -> list[FlippedPicture]:
    """Each picture and output once, whatever the batch sizes."""
    found = {
        (one.probe.names[flip.row], one.output): FlippedPicture(
            picture=one.probe.names[flip.row],
            output=one.output,
            expected=flip.expected,
            got=flip.got,
            margin=flip.margin,
            inside_noise=flip.inside_noise,
        )
        for one in tried
        for flip in one.comparison.flips
    }
    return list(found.values())
