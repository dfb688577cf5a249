"""How accurate a measured network is: as somebody published, or as ``mbexport evaluate`` counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from mbexport.errors import DocumentError, InputError
from mbexport.quantities import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mbexport.analysis.machine import Cell, Machine

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Top1(NamedTuple):
    """A share of 1 and where it is from."""

    share: float
    source: str
    interval: tuple[float, float] | None = None
    """95%; None of a published one."""
    precision: str = "f32"
    """What the network computed in when its answers were counted."""


class RuntimeTop1(msgspec.Struct, frozen=True, kw_only=True):
    """One of the report's rows."""

    runtime: str
    precision: str = "f32"
    """Of a report that does not say so, from before there were narrower files: then float32 was pinned."""
    top1: _Share
    top1_ci: tuple[_Share, _Share]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a :class:`mbexport.evaluate.EvaluationReport`."""

    artifact: str
    artifact_sha256: str
    input_size: tuple[int, int] | None
    mode: Mode = "parity"
    images: Annotated[int, msgspec.Meta(ge=1)]
    rows: Annotated[list[RuntimeTop1], msgspec.Meta(min_length=1)]

    @property
    def key(self) -> tuple[str, tuple[int, int] | None, Mode]:
        """What one report is enough of."""
        return self.artifact_sha256, self.input_size, self.mode

    def is_of(self, cell: Cell) -> bool:
        """Whether this very file was measured, at the size of this evaluation."""
        same_file = self.artifact_sha256 == cell.profile.artifact_sha256
        return same_file and self.input_size == cell.measurement.input_size

    def top1(self, cell: Cell) -> Top1 | None:
        """Of this row's runtime, else of the first in float32, where they differ by rounding alone.

        None where another file was evaluated, or on other runtimes only and in a narrower precision: each engine has
        an arithmetic of its own for it, if not a file.
        """
        if not self.is_of(cell):
            return None
        rows = [row for row in self.rows if row.runtime == cell.measurement.runtime]
        if not rows and cell.profile.precision == "f32":
            rows = [row for row in self.rows if row.precision == "f32"]
        if not rows:
            return None
        row = rows[0]
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return Top1(row.top1, f"measured on {images}, {row.runtime}", row.top1_ci, row.precision)


def read_evaluations(paths: Iterable[Path]) -> dict[Path, Evaluation]:
    """Read what ``mbexport evaluate ARTIFACT --images DIR --json`` printed.

    Raises:
        DocumentError: a file that cannot be read or is no such report.
        InputError: two of one artifact in one mode.
    """
    found: dict[Path, Evaluation] = {}
    for path in dict.fromkeys(paths):
        evaluation = _read(path)
        for other, known in found.items():
            if known.key == evaluation.key:
                raise InputError(
                    f"{other} and {path} are both of {_name(evaluation)} in {evaluation.mode}; "
                    "give one --accuracy of each"
                )
        found[path] = evaluation
    return found


def check_measured(evaluations: Mapping[Path, Evaluation], machine: Machine, chosen: Sequence[Cell]) -> None:
    """Refuse evaluations that no row could use, which would be left out without a word.

    Raises:
        InputError: one is of an artifact that was not measured on the machine, or not with the settings ``chosen``.
    """
    for path, evaluation in evaluations.items():
        if any(evaluation.top1(cell) for cell in chosen):
            continue
        what, where = f"{path} is of {_name(evaluation)}", machine.hardware.slug
        if any(map(evaluation.is_of, chosen)):
            seen = ", ".join(row.runtime for row in evaluation.rows)
            raise InputError(
                f"{what} on {seen}, which tells nothing of its top-1 on another runtime, as it is not in float32; "
                "evaluate it there with --runtime"
            )
        if any(map(evaluation.is_of, machine.cells)):
            raise InputError(f"{what}, which was measured on {where} with other settings only; ask for those")
        if any(evaluation.artifact == cell.profile.artifact for cell in machine.cells):
            raise InputError(
                f"{what}; what was measured on {where} under that name is another file or another size; "
                "measure this one with: mbexport bench ARTIFACT"
            )
        raise InputError(f"{what}, which was not measured on {where}; measure it with: mbexport bench ARTIFACT")


def top1_of(cell: Cell, evaluations: Iterable[Evaluation]) -> Top1 | None:
    """As evaluated, in this row's own precision if that was; else as published for ImageNet's weights, of a file in
    float32; None where neither is known.
    """
    found = [top1 for evaluation in evaluations if (top1 := evaluation.top1(cell)) is not None]
    if found:
        return min(found, key=lambda top1: top1.precision != cell.measurement.precision)
    published = cell.published
    return None if published is None else Top1(published.top1, published.source)


def _read(path: Path) -> Evaluation:
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError(f"{path} is not valid JSON ({error})") from error
    try:
        return msgspec.convert(document, Evaluation)
    except msgspec.ValidationError as error:
        raise DocumentError(
            f"{path} is not what `mbexport evaluate ARTIFACT --images DIR --json` prints of labelled images: {error}"
        ) from error


def _name(evaluation: Evaluation) -> str:
    return f"{evaluation.artifact} ({evaluation.artifact_sha256[:12]}...)"
