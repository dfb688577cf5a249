"""An artifact on every runtime against the stored reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import thresholds
from mbexport.artifact import read_reference
from mbexport.errors import ArtifactError, EngineError
from mbexport.outputs import compare_output, threshold_db
from mbexport.profile import Mode
from mbexport.reference import Reference
from mbexport.runtimes import SessionOptions, load_engine, split_target
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.compare import Comparison
    from mbexport.manifest import InputContract, OutputContract
    from mbexport.runtimes import Session, SessionFacts

    Arrays = Mapping[str, NDArray[Any]]


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for and what the engine says it did; None where it never got that far."""

    requested: str
    effective: str | None


class ValidationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime. With several outputs or sizes the figures are those of the worst one."""

    runtime: str
    mode: Mode
    precision: Precision
    placement: dict[str, int]
    """Device -> number of nodes."""
    sqnr_db: float | None
    """None with ``passed`` true means bit-equal, None with ``passed`` false not finite or not comparable."""
    max_abs_error: float | None
    top1_agreement: float | None
    """Share of the reference pictures with the same top class; None where the network does not classify."""
    threshold_db: float
    passed: bool
    reason: str | None
    """Why it failed, or why passing proves little."""


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """All rows; ``passed`` means that there is one and that each of them passed."""

    passed: bool
    rows: list[ValidationRow]
    sizes: list[tuple[int, int]]
    """Height and width in pixels of the pictures that each runtime was tried on; several where they are dynamic."""
    golden: int = 0
    """How many golden pictures it was tried on besides."""


def validate(
    artifact: Artifact,
    targets: Sequence[str],
    *,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Run the reference inputs on each target with float32 pinned and compare with Keras in float64.

    A runtime passes when its SQNR is at most :data:`thresholds.F32_MARGIN_DB` under that of Keras's own float32, it
    computed in float32, and no node ran elsewhere than asked; where height and width are dynamic, at every size of the
    reference, each in a session of its own. An engine that fails makes a failed row.

    Args:
        artifact: a checked artifact.
        targets: targets that are here, such as ``ort:cpu``; see :func:`mbexport.runtimes.resolve_targets`.
        threads: threads for each engine; None leaves the engine's default.
        progress: called with each target before it starts.

    Raises:
        ArtifactError: the model cannot be read, its input has no shape, or the stored reference is too noisy to prove
            anything.
        MissingError: an engine or device is not here.
    """
    from mbexport.diagnose import contract_fault, metadata_fault

    contract = artifact.manifest.input
    if not contract.shape:
        raise ArtifactError(f"{artifact.path}: the manifest gives the input no shape; build the artifact again")
    stored = read_reference(artifact)
    fault = metadata_fault(artifact) or contract_fault(contract, stored)
    probes = list(_probes(artifact, stored))
    rows = []
    for target in targets:
        if progress is not None:
            progress(target)
        if fault is not None:  # no engine need be asked
            rows.append(_failed(target, fault, probes[0]))
        else:
            rows.append(min((_tried(artifact, probe, target, threads) for probe in probes), key=standing))
    return ValidationReport(
        passed=bool(rows) and all(row.passed for row in rows),
        rows=rows,
        sizes=[contract.size_of(_pictures(reference)) for reference in stored.each],
        golden=len(stored.golden),
    )


@dataclass(frozen=True)
class Probe:
    """Inputs with their truth, the least SQNR of each output, and words for where a failure was."""

    reference: Reference
    limits_db: Mapping[str, float]
    where: str


def _probes(artifact: Artifact, stored: Reference) -> Iterator[Probe]:
    """Each size, then each golden picture, made an input by the contract as a user's program would."""
    from mbexport.images import network_input

    contract, outputs, ops = artifact.manifest.input, artifact.manifest.outputs, artifact.manifest.graph.ops
    for reference in stored.each:
        limits_db = {output.name: threshold_db(output, reference, ops) for output in outputs}
        yield Probe(reference, limits_db, size_label(contract, reference))
    for number, kept in enumerate(stored.golden, start=1):
        inputs = {contract.name: network_input(kept.picture[None], contract)}
        limits_db = {output.name: thresholds.GOLDEN_LEAST_DB for output in outputs}
        yield Probe(Reference(inputs, {}, kept.keras_float64), limits_db, f" on golden picture {number}")


def size_label(contract: InputContract, reference: Reference) -> str:
    """`` at 160x96`` where height and width are dynamic, else nothing."""
    return f" at {size_text(contract.size_of(_pictures(reference)))}" if contract.is_dynamic else ""


def _pictures(reference: Reference) -> NDArray[Any]:
    return next(iter(reference.inputs.values()))


def _tried(artifact: Artifact, probe: Probe, target: str, threads: int | None) -> ValidationRow:
    engine, device = split_target(target)
    contract, pictures = artifact.manifest.input, _pictures(probe.reference)
    batch = contract.shape[0] or len(pictures)
    options = SessionOptions(mode="parity", threads=threads, batch=batch, size=contract.size_of(pictures))
    try:
        with load_engine(engine).open(artifact.model_path(target), device, options) as session:

            def judged(inputs: NDArray[Any]) -> Comparison:
                answers = _run_batches(session, {contract.name: inputs}, len(inputs), batch)
                return _worst(artifact.manifest.outputs, probe, answers)

            worst = _explained(judged, pictures, contract)
            facts = session.facts()
    except EngineError as error:
        return _failed(target, str(error), probe)
    return _row(target, worst, facts, _broken_promises(facts, device), probe.where)


def _worst(outputs: Sequence[OutputContract], probe: Probe, answers: Arrays) -> Comparison:
    truth = probe.reference.keras_float64
    found = (compare_output(output, truth[output.name], answers, probe.limits_db[output.name]) for output in outputs)
    return min(found, key=standing)


def _explained(
    judged: Callable[[NDArray[Any]], Comparison], pictures: NDArray[Any], contract: InputContract
) -> Comparison:
    """The verdict, and where it is a failure the mistake in the input that it comes from, if it is one of the usual."""
    from mbexport.diagnose import explain

    try:
        found = judged(pictures)
    except EngineError as error:
        cause = explain(judged, pictures, contract)
        if cause is None:
            raise
        raise EngineError(f"{error}; {cause}") from error
    if found.passed:
        return found
    cause = explain(judged, pictures, contract)
    return replace(found, reason=f"{found.reason}; {cause}") if cause else found


def _failed(target: str, reason: str, probe: Probe) -> ValidationRow:
    from mbexport.compare import failure

    return _row(target, failure(reason, max(probe.limits_db.values())), None, [], probe.where)


def _row(target: str, worst: Comparison, facts: SessionFacts | None, broken: list[str], where: str) -> ValidationRow:
    reasons = "; ".join([*broken, *([worst.reason] if worst.reason else [])])
    return ValidationRow(
        runtime=target,
        mode="parity",
        precision=Precision(requested="f32", effective=facts.precision if facts else None),
        placement=dict(facts.placement) if facts else {},
        sqnr_db=worst.sqnr_db,
        max_abs_error=worst.max_abs_error,
        top1_agreement=worst.top1_agreement,
        threshold_db=worst.threshold_db,
        passed=worst.passed and not broken,
        reason=f"{reasons}{where}" if reasons else None,
    )


def _run_batches(session: Session, inputs: Arrays, pictures: int, batch: int) -> dict[str, NDArray[Any]]:
    """The answers to all pictures. The last picture fills up the last batch; its extra answers are dropped."""
    import numpy as np

    parts: dict[str, list[NDArray[Any]]] = {}
    for start in range(0, pictures, batch):
        rows = np.minimum(np.arange(start, start + batch), pictures - 1)
        answers = session.run({name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()})
        for name, answer in answers.items():
            parts.setdefault(name, []).append(answer)
    return {name: np.concatenate(answers)[:pictures] for name, answers in parts.items()}


def standing(comparison: Comparison | ValidationRow) -> tuple[bool, bool, float]:
    """Orders outputs or sizes from worst to best: failed ones, those that prove little, then by the distance to go."""
    if comparison.sqnr_db is None:
        distance_db = math.inf if comparison.passed else -math.inf
    else:
        distance_db = comparison.sqnr_db - comparison.threshold_db
    return comparison.passed, comparison.reason is None, distance_db


def _broken_promises(facts: SessionFacts, device: str) -> list[str]:
    broken = []
    if facts.precision != "f32":
        broken.append(f"f32 was asked for, the engine computed in {facts.precision}")
    if device != "auto":
        # "gpu" stands for the first GPU, which its engine may call gpu.0.
        strays = [place for place in facts.placement if place != device and not place.startswith(f"{device}.")]
        broken += [f"{facts.placement[place]} nodes ran on {place} instead of {device}" for place in strays]
    return broken
