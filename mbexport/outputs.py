"""One output against its truth, in the quantity that its kind asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mbexport import thresholds
from mbexport.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mbexport.compare import Comparison
    from mbexport.manifest import OutputContract
    from mbexport.reference import Reference

    Arrays = Mapping[str, NDArray[Any]]


_BOTH_ROUND_DB = 10 * math.log10(2)
"""What two noisy sides stand apart more than one noisy side does from the truth."""
SATURATED = 1e-7
"""A probability this near to 0 or 1 is one of them in float32, whatever the logits are in detail."""


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
    quantity, answered = comparable(output, truth, answer)
    found = compare(quantity, answered, threshold_db=limit_db, classifier=output.kind != "features")
    return replace(found, reason=_caveat(output, truth, quantity)) if found.passed else found


def probability_error(output: OutputContract, truth: NDArray[Any], answers: Arrays) -> float | None:
    """The largest absolute error of a class's probability; None where there are no classes, or no such answer."""
    import numpy as np

    answer = answers.get(output.name)
    if output.kind == "features" or answer is None or answer.shape != truth.shape or not np.isfinite(answer).all():
        return None
    one, other = (array if output.kind == "probabilities" else _softmax(array) for array in (truth, answer))
    return float(np.abs(one - other).max(initial=0.0))


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    powers: NDArray[Any] = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: NDArray[Any] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _caveat(output: OutputContract, truth: NDArray[Any], quantity: NDArray[Any]) -> str | None:
    """Why passing proves little, where the right answer does not depend on what the network computed."""
    import numpy as np

    if output.kind == "probabilities" and quantity.shape[-1] == 1:
        return (
            "softmax over one class is 1 whatever the network computes, so passing proves nothing about it; "
            "build with --classifier-activation none"
        )
    if output.kind == "probabilities" and (np.minimum(truth, 1 - truth) < SATURATED).all():
        return f"{output.name} are 0 or 1 on every reference picture, as far as float32 tells, so passing proves little"
    if output.kind == "probabilities" and quantity.min() > 0:  # logits, centred, have negative ones
        return (
            f"{output.name} give every class the same probability on every reference picture, as networks do that were "
            "never trained, so passing proves little"
        )
    if not quantity.any():
        return f"{output.name} carry no signal on any reference picture, so passing proves little about the network"
    return None


def comparable(output: OutputContract, truth: NDArray[Any], answer: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The quantity that SQNR is taken of: logits without their common offset, or features as they are.

    Logits are moved by the truth's mean on both sides. So an offset that all classes share does not count as signal,
    but an answer that is off by a constant still counts as wrong. Of one class nothing would be left without its
    offset, so it is compared as it is; and so are probabilities that tell no class from another, for their logits are
    float32's rounding.
    """
    from mbexport.compare import centred_log, is_flat

    if truth.shape != answer.shape or output.kind == "features" or truth.shape[-1] == 1:
        return truth, answer
    if output.kind == "probabilities":
        if is_flat(truth):
            return truth, answer
        return centred_log(truth), centred_log(answer)
    offset = truth.mean(axis=-1, keepdims=True)
    return truth - offset, answer - offset


def threshold_db(output: OutputContract, reference: Reference) -> float:
    """The least SQNR at which a float32 runtime passes on this output.

    Raises:
        ArtifactError: the reference is too noisy to prove anything.
    """
    return float32_floor_db(output, reference) - margin_db(output, reference)


def guard_limit_db(output: OutputContract, reference: Reference, pictures: int) -> float:
    """The least SQNR of a graph in float32 against itself after a pass, on the first ``pictures``.

    Both sides round, so their noise adds up, and few pictures of a few classes leave more to chance than all do.

    Raises:
        ArtifactError: the reference is too noisy to prove anything.
    """
    seen = reference.keras_float64[output.name][:pictures]
    return float32_floor_db(output, reference) - _margin_db(output, seen) - _BOTH_ROUND_DB


def images_limit_db(output: OutputContract, stored: Reference, shown: Reference) -> float:
    """The least SQNR of a float32 runtime on the user's own pictures: ``shown`` holds the graph's float32 and float64.

    Raises:
        ArtifactError: the stored reference is too noisy to prove anything.
    """
    found_db = sqnr_of(output, shown)
    floor_db = float32_floor_db(output, stored)
    return (floor_db if math.isnan(found_db) else min(found_db, floor_db)) - thresholds.IMAGES_MARGIN_DB


def margin_db(output: OutputContract, reference: Reference) -> float:
    """How far a float32 runtime may stand under the noise floor: more where few numbers leave much to chance."""
    return _margin_db(output, reference.keras_float64[output.name])


def _margin_db(output: OutputContract, truth: NDArray[Any]) -> float:
    from mbexport.accuracy.chance import chance_db

    return max(thresholds.F32_MARGIN_DB, min(chance_db(output, truth), thresholds.F32_MOST_MARGIN_DB))


def float32_floor_db(output: OutputContract, reference: Reference) -> float:
    """SQNR of Keras's float32 against float64, the artifact's own noise floor; rounding of exact answers included.

    Raises:
        ArtifactError: the reference is too noisy to prove anything.
    """
    floor_db = sqnr_of(output, reference)
    if not floor_db >= thresholds.F32_LEAST_FLOOR_DB:
        raise ArtifactError(
            f"the stored reference of output {output.name} proves nothing: Keras float32 stands {floor_db:.1f} dB from "
            f"float64, at least {thresholds.F32_LEAST_FLOOR_DB:.0f} dB are needed; check the weights and build again"
        )
    return min(floor_db, thresholds.F32_ROUNDING_DB)


def sqnr_of(output: OutputContract, reference: Reference) -> float:
    """SQNR of a reference's float32 against its float64, in the quantity that is compared; NaN where shapes differ."""
    from mbexport.compare import sqnr_db

    truth, single = reference.keras_float64[output.name], reference.keras_float32[output.name]
    return sqnr_db(*comparable(output, truth, single)) if truth.shape == single.shape else math.nan
