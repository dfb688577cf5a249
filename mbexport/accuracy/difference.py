"""A row of saved answers against its truth, and against another row. NumPy and msgspec are all that this needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbexport.accuracy.compared import Difference
from mbexport.accuracy.report import FlippedPicture
from mbexport.compare import Comparison, compare, failure, standing
from mbexport.outputs import comparable, compare_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mbexport.accuracy.saved import SavedLimit, SavedOutputs, SavedProbe
    from mbexport.manifest import OutputContract

_LEAST_SIGNAL = 1e-6
"""What noise as loud as the signal is taken to leave of it: no limit of 0 dB bounds anything."""
_MOST_DB = 1000.0
"""Limits beyond this, which --min-sqnr may ask for, are beyond float64's digits too."""


@dataclass(frozen=True)
class _Found:
    """One output on one probe."""

    probe: SavedProbe
    output: OutputContract
    comparison: Comparison
    origin: str
    """Where the limit comes from."""


def from_truth(saved: SavedOutputs, row: int) -> Difference:
    """How far a row's answers stand from the truth beside them, under the limits that ``validate`` derived."""

    def found(probe: SavedProbe, output: OutputContract) -> _Found:
        limit, answers = _limit(saved, row, probe, output), saved.answers[row].get(probe.name)
        if limit is None or not answers:
            return _Found(probe, output, failure(f"no answer to {probe.name}", math.nan), "")
        truth = saved.truth[probe.name][output.name]
        return _Found(probe, output, compare_output(output, truth, answers, limit.least_db), limit.origin)

    return _worst(saved, found)


def from_first(first: SavedOutputs, saved: SavedOutputs, row: int) -> Difference:
    """How far a row's answers stand from those of the first row of ``first``, which has the same probes and outputs.

    Both are compared in the quantity that the truth of ``first`` asks for. The limit is :func:`added_db`.
    """

    def found(probe: SavedProbe, output: OutputContract) -> _Found:
        limits = [_limit(first, 0, probe, output), _limit(saved, row, probe, output)]
        pair = [each.get(probe.name, {}).get(output.name) for each in (first.answers[0], saved.answers[row])]
        one, other = pair
        if one is None or other is None or limits[0] is None or limits[1] is None:
            return _Found(probe, output, failure(f"no two answers to {probe.name}", math.nan), "")
        limit_db = added_db(limits[0].least_db, limits[1].least_db)
        quantities = (comparable(output, first.truth[probe.name][output.name], each)[1] for each in (one, other))
        comparison = compare(*quantities, threshold_db=limit_db, classifier=output.kind != "features")
        return _Found(probe, output, comparison, "what the limits of both rows let through, added up")

    return _worst(saved, found)


def added_db(one_db: float, other_db: float) -> float:
    """The least SQNR of two answers of which each keeps its limit against one truth, the first one being the signal.

    Noise that the limits let through has the shares a and b of the truth's amplitude. By the triangle inequality the
    two then stand (a + b) apart at most and the first has (1 - a) left at least, so it is 20 log10((1 - a) / (a + b)).
    """
    a, b = (10 ** (-max(-_MOST_DB, min(limit_db, _MOST_DB)) / 20) for limit_db in (one_db, other_db))
    return 20 * math.log10(max(1 - a, _LEAST_SIGNAL) / (a + b))


def _limit(saved: SavedOutputs, row: int, probe: SavedProbe, output: OutputContract) -> SavedLimit | None:
    return saved.document.rows[row].limits.get(probe.name, {}).get(output.name)


def _worst(saved: SavedOutputs, found: Callable[[SavedProbe, OutputContract], _Found]) -> Difference:
    document = saved.document
    with np.errstate(all="ignore"):  # answers may hold anything: compare says what is not finite
        every = [found(probe, output) for probe in document.probes for output in document.outputs]
    worst = min(every, key=lambda one: standing(one.comparison))
    comparison, threshold_db = worst.comparison, worst.comparison.threshold_db
    agreements = [one.comparison.top1_agreement for one in every if one.comparison.top1_agreement is not None]
    return Difference(
        output=worst.output.name,
        inputs=worst.probe.name,
        sqnr_db=comparison.sqnr_db,
        max_abs_error=comparison.max_abs_error,
        mean_abs_error=comparison.mean_abs_error,
        top1_agreement=min(agreements, default=None),
        flips=[flip for one in every for flip in _flips(one)],
        threshold_db=threshold_db if math.isfinite(threshold_db) else None,
        threshold_origin=worst.origin,
        passed=comparison.passed,
        reason=comparison.reason,
    )


def _flips(found: _Found) -> Iterator[FlippedPicture]:
    pictures = found.probe.pictures
    for flip in found.comparison.flips:
        yield FlippedPicture(
            picture=pictures[flip.row],
            output=found.output.name,
            expected=flip.expected,
            got=flip.got,
            margin=flip.margin,
            inside_noise=flip.inside_noise,
        )
