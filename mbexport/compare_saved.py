"""Answers from several machines, saved by ``validate --save-outputs``: against their truth, and against the first.

NumPy and msgspec are all that this needs: no runtime, no onnx, no artifact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport import thresholds
from mbexport.accuracy.compared import ComparedFile, ComparedRow, Difference, SavedComparison
from mbexport.accuracy.difference import from_first, from_truth
from mbexport.accuracy.saved import SavedOutputs, read_saved
from mbexport.compare import sqnr_db
from mbexport.errors import InputError
from mbexport.outputs import comparable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["ComparedFile", "ComparedRow", "Difference", "SavedComparison", "compare_saved"]


@dataclass(frozen=True)
class _File:
    name: str
    saved: SavedOutputs

    @property
    def rows(self) -> range:
        return range(len(self.saved.document.rows))


def compare_saved(paths: Sequence[Path]) -> SavedComparison:
    """Hold each row of each file to its own truth, and to the first row of the first file.

    A row must keep the limits that ``validate`` derived for it where it ran, and stand no further from the first row
    than its own limit and that row's allow together. What ``validate`` failed stays failed.

    Args:
        paths: one or more files.

    Raises:
        InputError: a file is missing, damaged, given twice, or holds answers to other inputs than the first.
        DocumentError: a file of a newer mbexport.
    """
    _refuse_twice(paths)
    first, *others = (_File(str(path), read_saved(path)) for path in paths)
    for other in others:
        _refuse_unlike(first, other)
    yardstick = _row(first, 0)
    rows = [
        _row(file, row, first.saved, decides=yardstick.passed)
        for file in (first, *others)
        for row in file.rows
        if file is not first or row > 0
    ]
    notes = [note for other in others for note in _notes(first, other)]
    if rows and not yardstick.passed:
        notes.append(f"the first row of {first.name} failed, so differences from it decide nothing")
    return SavedComparison(
        passed=all(row.passed for row in (yardstick, *rows)),
        files=[_origin(file) for file in (first, *others)],
        rows=[yardstick, *rows],
        notes=notes,
    )


def _row(file: _File, place: int, yardstick: SavedOutputs | None = None, *, decides: bool = False) -> ComparedRow:
    row = file.saved.document.rows[place]
    truth = from_truth(file.saved, place)
    first = from_first(yardstick, file.saved, place) if yardstick else None
    agrees = first is None or first.passed or not decides
    reason = truth.reason if row.passed else row.reason
    if row.passed and truth.passed and first is not None and not agrees:
        reason = f"from the first row: {first.reason}"
    return ComparedRow(
        file=file.name,
        runtime=row.runtime,
        mode=row.mode,
        batch=row.batch,
        precision=row.precision,
        truth=truth,
        first=first,
        passed=row.passed and truth.passed and agrees,
        reason=reason,
    )


def _refuse_twice(paths: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in paths:
        place = path.resolve()
        if place in seen:
            raise InputError(f"{path} is the same file as {seen[place]}; name each once")
        seen[place] = path


def _refuse_unlike(first: _File, other: _File) -> None:
    """Raise :class:`InputError` where the two do not answer the same question."""
    kinds, others = ({each.name: each.kind for each in file.saved.document.outputs} for file in (first, other))
    if kinds != others:
        raise InputError(
            f"{other.name} cannot be compared with {first.name}: its outputs are {_list(others)}, not {_list(kinds)}"
        )
    asked, asked_there = (
        {probe.name: probe.inputs_sha256 for probe in file.saved.document.probes} for file in (first, other)
    )
    unlike = [name for name in {**asked, **asked_there} if asked.get(name) != asked_there.get(name)]
    if unlike:
        raise InputError(
            f"{other.name} cannot be compared with {first.name}: other inputs ({', '.join(unlike)}); "
            "validate the same artifact with the same --images on both machines"
        )


def _list(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items())


def _origin(file: _File) -> ComparedFile:
    document = file.saved.document
    engines = {name: version for row in document.rows for name, version in row.versions.items()}
    return ComparedFile(
        file=file.name,
        artifact=document.artifact,
        artifact_sha256=document.artifact_sha256,
        hardware=document.hardware.slug,
        cpu=document.hardware.cpu,
        versions={**document.versions, **engines},
    )


def _notes(first: _File, other: _File) -> Iterator[str]:
    """What else than the machine is another."""
    digest, there = (file.saved.document.artifact_sha256 for file in (first, other))
    if digest != there:
        yield (
            f"{other.name} is of another model.onnx than {first.name}: sha256 {there[:12]}, not {digest[:12]}; "
            "another build, opset or network"
        )
    apart_db = _apart_db(first.saved, other.saved)
    if apart_db < thresholds.F32_ROUNDING_DB:  # float64 rounds on other machines otherwise, and far more finely
        yield f"the right answers of {other.name} stand {apart_db:.1f} dB from those of {first.name}: other weights"


def _apart_db(one: SavedOutputs, other: SavedOutputs) -> float:
    """SQNR of the second one's truth against the first one's, where it is worst."""
    pairs = (
        (output, one.truth[probe.name][output.name], other.truth[probe.name][output.name])
        for probe in one.document.probes
        for output in one.document.outputs
    )
    return min(
        sqnr_db(*comparable(output, truth, there)) if truth.shape == there.shape else -math.inf
        for output, truth, there in pairs
    )
