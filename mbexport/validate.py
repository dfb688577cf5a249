"""An artifact on every runtime against the stored reference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import thresholds
from mbexport.artifact import read_reference
from mbexport.errors import ArtifactError, EngineError
from mbexport.profile import Mode
from mbexport.runtimes import SessionOptions, load_engine, split_target
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact, InputContract, OutputContract, Reference
    from mbexport.compare import Comparison
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
    if not artifact.manifest.input.shape:
        raise ArtifactError(f"{artifact.path}: the manifest gives the input no shape; build the artifact again")
    probes = [
        (reference, {output.name: threshold_db(output, reference) for output in artifact.manifest.outputs})
        for reference in read_reference(artifact).each
    ]
    rows = []
    for target in targets:
        if progress is not None:
            progress(target)
        found = [_validate_at_size(artifact, *probe, target, threads) for probe in probes]
        rows.append(min(found, key=_standing))
    return ValidationReport(
        passed=bool(rows) and all(row.passed for row in rows),
        rows=rows,
        sizes=[artifact.manifest.input.size_of(_pictures(reference)) for reference, _ in probes],
    )


def size_label(contract: InputContract, reference: Reference) -> str:
    """`` at 160x96`` where height and width are dynamic, else nothing."""
    return f" at {size_text(contract.size_of(_pictures(reference)))}" if contract.is_dynamic else ""


def _pictures(reference: Reference) -> NDArray[Any]:
    return next(iter(reference.inputs.values()))


def _validate_at_size(
    artifact: Artifact, reference: Reference, limits_db: Mapping[str, float], target: str, threads: int | None
) -> ValidationRow:
    from mbexport.compare import failure

    engine, device = split_target(target)
    contract, pictures = artifact.manifest.input, _pictures(reference)
    batch = contract.shape[0] or len(pictures)
    options = SessionOptions(mode="parity", threads=threads, batch=batch, size=contract.size_of(pictures))
    where = size_label(contract, reference)
    try:
        with load_engine(engine).open(artifact.model_path(target), device, options) as session:
            answers, facts = _run_batches(session, reference.inputs, len(pictures), batch), session.facts()
    except EngineError as error:
        return _row(target, failure(str(error), max(limits_db.values())), None, [], where)
    worst = min(
        (
            compare_output(output, reference.keras_float64[output.name], answers, limits_db[output.name])
            for output in artifact.manifest.outputs
        ),
        key=_standing,
    )
    return _row(target, worst, facts, _broken_promises(facts, device), where)


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


def compare_output(output: OutputContract, truth: NDArray[Any], answers: Arrays, limit_db: float) -> Comparison:
    """One output's answer against its float64 truth for the same pictures, in the quantity that its kind asks for."""
    from mbexport.compare import compare, failure

    if output.name not in answers:
        return failure(f"the model has no output {output.name}, only {', '.join(answers)}", limit_db)
    answer = answers[output.name]
    if output.kind == "probabilities" and truth.shape == answer.shape:
        off = float(abs(answer.sum(axis=-1, dtype="float64") - 1).max())
        if off > thresholds.PROBABILITY_SUM_TOLERANCE:  # NaN is left to compare, which says so
            return failure(f"probabilities do not sum to 1: off by {off:.2g}", limit_db)
    quantity, answered = _comparable(output, truth, answer)
    found = compare(quantity, answered, threshold_db=limit_db, classifier=output.kind != "features")
    return replace(found, reason=_caveat(output, quantity)) if found.passed else found


def _caveat(output: OutputContract, quantity: NDArray[Any]) -> str | None:
    """Why passing proves little, where the right answer does not depend on what the network computed."""
    if output.kind == "probabilities" and quantity.shape[-1] == 1:
        return (
            "softmax over one class is 1 whatever the network computes, so passing proves nothing about it; "
            "build with --classifier-activation none"
        )
    if not quantity.any():
        return f"{output.name} carry no signal on any reference picture, so passing proves little about the network"
    return None


def _comparable(output: OutputContract, truth: NDArray[Any], answer: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The quantity that SQNR is taken of: logits without their common offset, or features as they are.

    Logits are moved by the truth's mean on both sides. So an offset that all classes share does not count as signal,
    but an answer that is off by a constant still counts as wrong. Of one class nothing would be left without its
    offset, so it is compared as it is.
    """
    from mbexport.compare import centred_log

    if truth.shape != answer.shape or output.kind == "features" or truth.shape[-1] == 1:
        return truth, answer
    if output.kind == "probabilities":
        return centred_log(truth), centred_log(answer)
    offset = truth.mean(axis=-1, keepdims=True)
    return truth - offset, answer - offset


def threshold_db(output: OutputContract, reference: Reference) -> float:
    """The least SQNR at which a float32 runtime passes on this output.

    Raises:
        ArtifactError: the reference is too noisy to prove anything.
    """
    from mbexport.compare import sqnr_db

    truth, keras = reference.keras_float64[output.name], reference.keras_float32[output.name]
    floor_db = sqnr_db(*_comparable(output, truth, keras)) if truth.shape == keras.shape else math.nan
    if not floor_db >= thresholds.F32_LEAST_FLOOR_DB:
        raise ArtifactError(
            f"the stored reference of output {output.name} proves nothing: Keras float32 stands {floor_db:.1f} dB from "
            f"float64, at least {thresholds.F32_LEAST_FLOOR_DB:.0f} dB are needed; check the weights and build again"
        )
    return min(floor_db, thresholds.F32_ROUNDING_DB) - thresholds.F32_MARGIN_DB


def _standing(comparison: Comparison | ValidationRow) -> tuple[bool, bool, float]:
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
