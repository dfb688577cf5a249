"""One target in one mode, tried on every probe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport import thresholds
from mbexport.accuracy.limits import narrower
from mbexport.compare import Comparison, failure, standing
from mbexport.diagnose import explain
from mbexport.errors import EngineError
from mbexport.outputs import compare_output, probability_error
from mbexport.runtimes import SessionOptions, load_engine, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.accuracy.limits import Limits
    from mbexport.accuracy.probes import Probe
    from mbexport.artifact import Artifact
    from mbexport.quantities import Mode
    from mbexport.runtimes import Session, SessionFacts

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Tried:
    """One output on one probe in one batch size."""

    probe: Probe
    batch: int
    output: str
    comparison: Comparison
    origin: str
    """Where the limit comes from."""
    probability_error: float | None = None


@dataclass
class Trial:
    """Tries a target; ``tried`` and ``facts``, one for each session, fill as it goes."""

    artifact: Artifact
    target: str
    mode: Mode
    threads: int | None
    limits: Limits
    observe: Callable[[Trial, Probe, Arrays], None] | None = None
    """Told the answers to each probe, in every batch size."""
    tried: list[Tried] = field(default_factory=list)
    facts: list[SessionFacts] = field(default_factory=list)

    def run(self, probes: Sequence[Probe], batch: int) -> None:
        """One session for all probes of a size. An engine that fails has failed on each of them."""
        engine, device = split_target(self.target)
        for size, alike in self._by_size(probes).items():
            options = SessionOptions(mode=self.mode, threads=self.threads, batch=batch, size=size)
            try:
                with load_engine(engine).open(self.artifact.model_path(self.target), device, options) as session:
                    self.facts.append(session.facts())
                    for probe in alike:
                        self.tried += self._answered(session, probe, batch)
            except EngineError as error:
                self.tried += [self._failed(probe, batch, str(error)) for probe in alike]

    def _by_size(self, probes: Sequence[Probe]) -> dict[tuple[int, int], list[Probe]]:
        sizes: dict[tuple[int, int], list[Probe]] = {}
        for probe in probes:
            sizes.setdefault(self.artifact.manifest.input.size_of(probe.pictures), []).append(probe)
        return sizes

    def _answered(self, session: Session, probe: Probe, batch: int) -> list[Tried]:
        """In parity, a failure that comes from the usual mistakes in the input is called by its name."""

        def judged(pictures: NDArray[Any]) -> list[Tried]:
            answers = run_batches(session, {self.artifact.manifest.input.name: pictures}, batch)
            if pictures is probe.pictures and self.observe is not None:
                self.observe(self, probe, answers)
            return list(self._judged(probe, batch, answers))

        try:
            found = judged(probe.pictures)
        except EngineError as error:
            cause = self._cause(judged, probe)
            return [self._failed(probe, batch, f"{error}; {cause}" if cause else str(error))]
        if all(one.comparison.passed for one in found):
            return found
        cause = self._cause(judged, probe)
        return [_with_cause(one, cause) if cause and not one.comparison.passed else one for one in found]

    def _cause(self, judged: Callable[[NDArray[Any]], list[Tried]], probe: Probe) -> str | None:
        if self.mode != "parity":
            return None

        def worst(pictures: NDArray[Any]) -> Comparison:
            return min((one.comparison for one in judged(pictures)), key=standing)

        return explain(worst, probe.pictures, self.artifact.manifest.input)

    def _judged(self, probe: Probe, batch: int, answers: Arrays) -> Iterator[Tried]:
        limits = self.limits.of(probe, self.precision, self.target, self.mode)
        for output in self.artifact.manifest.outputs:
            truth, limit = probe.truth[output.name], limits[output.name]
            comparison = compare_output(output, truth, answers, limit.least_db)
            if self.limits.are_derived:
                comparison = _with_caveat(comparison, self.precision)
            error = probability_error(output, truth, answers)
            yield Tried(probe, batch, output.name, comparison, limit.origin, error)

    @property
    def precision(self) -> str:
        """The one whose limits hold: what production runs in, and float32 in parity, whatever the engine does."""
        return self.facts[-1].precision if self.mode == "production" and self.facts else "f32"

    def _failed(self, probe: Probe, batch: int, reason: str) -> Tried:
        output = self.artifact.manifest.outputs[0].name
        limit = self.limits.of(probe, "f32", self.target, self.mode)[output]
        return Tried(probe, batch, output, failure(reason, limit.least_db), limit.origin)


def _with_cause(one: Tried, cause: str) -> Tried:
    return replace(one, comparison=replace(one.comparison, reason=f"{one.comparison.reason}; {cause}"))


def _with_caveat(found: Comparison, precision: str) -> Comparison:
    if narrower(precision) is None or not found.passed or found.reason or found.threshold_db >= thresholds.TELLING_DB:
        return found
    told = (
        f"{precision}'s own rounding leaves {found.threshold_db:.1f} dB to be proven on this network, so passing "
        "proves little; mbexport evaluate counts right answers"
    )
    return replace(found, reason=told)


def run_batches(session: Session, inputs: Arrays, batch: int) -> dict[str, NDArray[Any]]:
    """The answers to all pictures. The last picture fills up the last batch; its extra answers are dropped."""
    parts: dict[str, list[NDArray[Any]]] = {}
    count = min(len(array) for array in inputs.values())
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        answers = session.run({name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()})
        for name, answer in answers.items():
            parts.setdefault(name, []).append(answer)
    return {name: np.concatenate(answers)[:count] for name, answers in parts.items()}
