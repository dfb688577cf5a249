"""Arrays against arrays: how far a candidate's numbers stand from the reference, as one value that passes or fails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Comparison:
    """One output against its reference. Its truth value is ``passed``."""

    sqnr_db: float | None
    """Signal-to-quantisation-noise ratio; None where bit-equal (passed) or not finite (not passed)."""
    max_abs_error: float | None
    """In the outputs' own unit; None where not finite."""
    mean_abs_error: float | None
    top1_agreement: float | None
    """Share of the rows whose largest class is the same; None where the output has no classes to choose from."""
    threshold_db: float
    passed: bool
    reason: str | None = None
    """Why it did not pass, or why passing proves little."""

    def __bool__(self) -> bool:
        return self.passed


def sqnr_db(reference: Array, candidate: Array) -> float:
    """``10 log10(sum(reference^2) / sum((reference - candidate)^2))``, in float64.

    ``inf`` where the two are equal, ``-inf`` where only the reference is all zero, ``nan`` where either holds a number
    that is not finite. Both must have one shape.
    """
    truth, answer = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    if not (np.isfinite(truth).all() and np.isfinite(answer).all()):
        return math.nan
    noise = _energy(truth - answer)
    if noise == 0:
        return math.inf
    signal = _energy(truth)
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def compare(reference: Array, candidate: Array, *, threshold_db: float, classifier: bool = False) -> Comparison:
    """Compare ``candidate`` with ``reference``, arrays of one shape with the batch first.

    Args:
        reference: the ground truth, float64.
        candidate: what a runtime answered.
        threshold_db: the least SQNR that passes.
        classifier: the last axis holds classes, so the largest one of each row is compared too.

    A mistake of the candidate (another shape, NaN, infinity) is a comparison that failed, never an exception.
    """
    truth, answer = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    if truth.shape != answer.shape:
        return failure(f"expected shape {truth.shape}, got {answer.shape}", threshold_db)
    if not np.isfinite(truth).all():
        return failure("the reference holds numbers that are not finite", threshold_db)
    if not np.isfinite(answer).all():
        bad = answer.size - np.count_nonzero(np.isfinite(answer))
        return failure(f"{bad} of {answer.size} numbers are not finite", threshold_db)
    ratio = sqnr_db(truth, answer)
    passed = ratio >= threshold_db
    error = np.abs(truth - answer)
    return Comparison(
        sqnr_db=ratio if math.isfinite(ratio) else None,
        max_abs_error=float(error.max(initial=0.0)),
        mean_abs_error=float(error.mean()) if error.size else 0.0,
        top1_agreement=_top1_agreement(truth, answer) if classifier else None,
        threshold_db=threshold_db,
        passed=passed,
        reason=None if passed else _why(ratio, threshold_db),
    )


def failure(reason: str, threshold_db: float) -> Comparison:
    """A comparison that could not even be calculated."""
    return Comparison(None, None, None, None, threshold_db, passed=False, reason=reason)


FLAT_LOGITS = 1e-4
"""Logits smaller than this (root mean square, centred) are lost in float32 probabilities, which round them by 2^-24:
less than 65 dB could be proven of them. Networks that were never trained give such answers."""


def is_flat(probabilities: Array) -> bool:
    """Whether every class is as likely as any other, as far as float32 can tell, on every picture."""
    logits = centred_log(probabilities)
    return bool(np.sqrt(np.mean(logits**2)) < FLAT_LOGITS) if logits.size else True


def centred_log(probabilities: Array) -> NDArray[np.float64]:
    """Logits from softmax's output: log p minus its mean over the classes (the last axis), in float64.

    Softmax forgets the logits' common offset, so they come back without it. Every p is floored at 2^-120 first, in
    the reference as in the candidate: near float32's smallest normal number, 2^-126, engines flush to 0 or not as they
    please (TensorFlow does from 2^-125), and the logarithm would turn that choice into the largest error of all.
    A negative p becomes NaN.
    """
    values = np.asarray(probabilities, np.float64)
    floored = np.maximum(values, 2.0**-120)
    logs: NDArray[np.float64] = np.where(values < 0, np.nan, np.log(floored))
    centred: NDArray[np.float64] = logs - logs.mean(axis=-1, keepdims=True)
    return centred


def _energy(values: NDArray[np.float64]) -> float:
    return float(np.sum(np.square(values)))


def _top1_agreement(truth: NDArray[np.float64], answer: NDArray[np.float64]) -> float | None:
    if truth.size == 0 or truth.shape[-1] == 1:
        return None
    return float(np.mean(truth.argmax(axis=-1) == answer.argmax(axis=-1)))


def _why(ratio: float, threshold_db: float) -> str:
    if ratio == -math.inf:
        return "the reference is all zero and the answer is not"
    return f"SQNR {ratio:.1f} dB is below {threshold_db:.1f} dB"
