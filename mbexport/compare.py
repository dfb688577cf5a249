"""Arrays against arrays: how far a candidate's numbers stand from the reference, as one value that passes or fails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

NOISE_AMPLITUDES = 4
"""The difference of two numbers, each with noise of amplitude s, has amplitude sqrt(2) s; four times that is as good as
never exceeded."""
LOUDEST_DB = 1000.0
"""A threshold under minus this is none, and its noise no float."""
_SHARES = (50, 90, 99)


@dataclass(frozen=True)
class Flip:
    """A row whose largest class is another than the reference's."""

    row: int
    expected: int
    got: int
    margin: float
    """How far the reference puts ``expected`` above ``got``, in the outputs' own unit."""
    inside_noise: bool
    """Whether an error that the threshold allows could turn the two round: rounding, and no fault."""


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
    abs_error_quantiles: Mapping[str, float] | None = None
    """``p50``, ``p90`` and ``p99`` of the absolute error; None where not finite."""
    cosine: float | None = None
    """Cosine of the angle between all the reference's numbers and the candidate's; None where either is all zero."""
    top5_agreement: float | None = None
    """Share of the reference's five largest classes of each row that are the candidate's too."""
    flips: tuple[Flip, ...] = ()

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
    flips = _flips(truth, answer, threshold_db) if classifier else None
    return Comparison(
        sqnr_db=ratio if math.isfinite(ratio) else None,
        max_abs_error=float(error.max(initial=0.0)),
        mean_abs_error=float(error.mean()) if error.size else 0.0,
        top1_agreement=None if flips is None else 1 - len(flips) / _rows(truth),
        threshold_db=threshold_db,
        passed=passed,
        reason=None if passed else _why(ratio, threshold_db),
        abs_error_quantiles=_quantiles(error),
        cosine=_cosine(truth, answer),
        top5_agreement=None if flips is None else _top_agreement(truth, answer),
        flips=tuple(flips or ()),
    )


def failure(reason: str, threshold_db: float) -> Comparison:
    """A comparison that could not even be calculated."""
    return Comparison(None, None, None, None, threshold_db, passed=False, reason=reason)


def standing(comparison: Comparison) -> tuple[bool, bool, float]:
    """Orders comparisons from worst to best: failed ones, those that prove little, then by the distance to go."""
    if comparison.sqnr_db is None:
        distance_db = math.inf if comparison.passed else -math.inf
    else:
        distance_db = comparison.sqnr_db - comparison.threshold_db
    return comparison.passed, comparison.reason is None, distance_db


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


def _rows(truth: NDArray[np.float64]) -> int:
    return truth.size // int(truth.shape[-1])


def _flips(truth: NDArray[np.float64], answer: NDArray[np.float64], threshold_db: float) -> list[Flip] | None:
    """None where there are no classes to choose from."""
    if truth.size == 0 or truth.shape[-1] == 1:
        return None
    rows, answers = (array.reshape(-1, truth.shape[-1]) for array in (truth, answer))
    allowed = NOISE_AMPLITUDES * math.sqrt(2 * np.mean(truth**2)) * 10 ** (-max(threshold_db, -LOUDEST_DB) / 20)
    expected, got = rows.argmax(axis=-1), answers.argmax(axis=-1)
    every = np.arange(len(rows))
    margins = rows[every, expected] - rows[every, got]
    return [
        Flip(int(row), int(expected[row]), int(got[row]), float(margins[row]), bool(margins[row] <= allowed))
        for row in np.flatnonzero(expected != got)
    ]


def _top_agreement(truth: NDArray[np.float64], answer: NDArray[np.float64], most: int = 5) -> float:
    count = min(most, truth.shape[-1])
    rows = (array.reshape(-1, truth.shape[-1]) for array in (truth, answer))
    expected, got = (np.argsort(-array, axis=-1, kind="stable")[:, :count] for array in rows)
    return float(np.mean([np.isin(one, other).mean() for one, other in zip(expected, got, strict=True)]))


def _quantiles(error: NDArray[np.float64]) -> dict[str, float] | None:
    if not error.size:
        return None
    return {f"p{share}": float(value) for share, value in zip(_SHARES, np.percentile(error, _SHARES), strict=True)}


def _cosine(truth: NDArray[np.float64], answer: NDArray[np.float64]) -> float | None:
    lengths = math.sqrt(_energy(truth)) * math.sqrt(_energy(answer))
    return float(np.sum(truth * answer)) / lengths if lengths > 0 else None


def _why(ratio: float, threshold_db: float) -> str:
    if ratio == -math.inf:
        return "the reference is all zero and the answer is not"
    return f"SQNR {ratio:.1f} dB is below {threshold_db:.1f} dB"
