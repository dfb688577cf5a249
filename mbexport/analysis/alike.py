"""Which rows of two profiles belong together, and whether they may be compared: like with like, or a named subject."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from mbexport.errors import InputError
from mbexport.profiles import same_machine, unlike_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mbexport.profile import Hardware, LatencyProfile, Measurement

Subject = Literal[
    "hardware", "runtime", "runtime-version", "artifact", "inputs", "mode", "precision", "threads", "options"
]
"""What a comparison can be about. Everything else must be equal. The options are the engine's, and which of the
artifact's model files it runs."""

_CARRIED: dict[Subject, set[Subject]] = {
    "mode": {"precision", "options"},
    "precision": {"options"},
    "threads": {"options"},
}
"""What differs by itself where a subject does: thread counts and precision hints are engine options, for example."""

_NOT_ENGINES = {"python", "numpy", "mbexport"}
"""Versions that may differ: between two readings of the clock only the engine's native code runs. What another mbexport
changes in a graph shows in the artifact's digest."""


_TOLD = 3
"""How many rows an error message names."""


class Cell(NamedTuple):
    """One measurement and the profile it stands in."""

    profile: LatencyProfile
    row: Measurement


class Difference(NamedTuple):
    """Something in which two rows differ, in words."""

    subject: Subject
    text: str


class Pairs(NamedTuple):
    """Rows that belong together, and those that the other side has not."""

    both: list[tuple[Cell, Cell]]
    only_a: list[Cell]
    only_b: list[Cell]


Key = tuple[object, ...]


def paired(a: Sequence[Cell], b: Sequence[Cell], across: Iterable[Subject]) -> Pairs:
    """Match rows by artifact and key, but for what the subject is.

    Where each side holds one artifact alone, its name does not matter here: whether the two may differ, :func:`unlike`
    tells.
    Where a file holds several rows that differ in the subject alone, one of A stands for the first value (parity, the
    fewer threads, the usual options) and one of B for the other; the rest of such a group is left out.

    Raises:
        InputError: more than one pairing is possible.
    """
    free = set(across) - {"artifact"}
    if all(len({cell.profile.artifact for cell in side}) == 1 for side in (a, b)):
        free.add("artifact")
    groups_a, groups_b = _grouped(a, free), _grouped(b, free)
    shared = [key for key in groups_a if key in groups_b]
    return Pairs(
        [_pair(groups_a[key], groups_b[key], free) for key in shared],
        [cell for key, cells in groups_a.items() if key not in groups_b for cell in cells],
        [cell for key, cells in groups_b.items() if key not in groups_a for cell in cells],
    )


def differences(a: Cell, b: Cell) -> Iterator[Difference]:
    """Everything in which two rows are not alike."""
    one, other = a.row, b.row
    if not same_machine(a.profile.hardware, b.profile.hardware):
        yield _differ("hardware", _machine(a.profile.hardware, b.profile.hardware))
    if a.profile.artifact != b.profile.artifact:
        yield _differ("artifact", {"artifact": (a.profile.artifact, b.profile.artifact)})
    elif a.profile.artifact_sha256 != b.profile.artifact_sha256:
        digests = (a.profile.artifact_sha256[:12], b.profile.artifact_sha256[:12])
        yield _differ("artifact", {f"model.onnx of {a.profile.artifact}": digests})
    subjects: tuple[Subject, ...] = ("runtime", "mode", "precision", "threads")
    for subject in subjects:
        if getattr(one, subject) != getattr(other, subject):
            yield _differ(subject, {subject: (getattr(one, subject), getattr(other, subject))})
    if one.model != other.model:
        yield _differ("options", {"model file": (one.model or "the usual", other.model or "the usual")})
    for subject, (mine, others) in _tables(one, other).items():
        # Of two engines, versions and options under other names are no difference but that of the engines.
        known = mine | others if one.runtime == other.runtime else {name: None for name in mine if name in others}
        names = [name for name in known if mine.get(name) != others.get(name)]
        if names:
            yield _differ(subject, {name: (mine.get(name), others.get(name)) for name in names})


def unlike(a: Cell, b: Cell, across: Iterable[Subject]) -> list[Difference]:
    """Those that nobody named as the subject."""
    named = {carried for subject in across for carried in (subject, *_CARRIED.get(subject, ()))}
    return [difference for difference in differences(a, b) if difference.subject not in named]


def subject_of(text: str) -> Subject:
    """A word as a subject.

    Raises:
        InputError: it is none.
    """
    known: tuple[Subject, ...] = get_args(Subject)
    for subject in known:
        if text == subject:
            return subject
    raise InputError(f"unknown --across {text!r}; known: {', '.join(known)}")


def label(cell: Cell) -> str:
    """A row's name, such as ``tiny: ort:cpu parity, 2 threads, batch 1``."""
    row = cell.row
    scenario = "" if row.scenario == "single-stream" else f", {row.scenario} {row.concurrency}"
    threads = f"{row.threads} thread{'' if row.threads == 1 else 's'}"
    unusual = f", {row.unusual}" if row.unusual else ""
    return f"{cell.profile.artifact}: {row.runtime} {row.mode}, {threads}, batch {row.batch}{scenario}{unusual}"


def _tables(one: Measurement, other: Measurement) -> dict[Subject, tuple[dict[str, object], dict[str, object]]]:
    return {
        "runtime-version": (_engines(one), _engines(other)),
        "inputs": (_inputs(one), _inputs(other)),
        "options": ({**one.engine_options}, {**other.engine_options}),
    }


def _engines(row: Measurement) -> dict[str, object]:
    return {name: version for name, version in row.versions.items() if name not in _NOT_ENGINES}


def _inputs(row: Measurement) -> dict[str, object]:
    size = {} if row.input_size is None else {"input size": "x".join(map(str, row.input_size))}
    return {"inputs": row.inputs_sha256[:12], **size}


def _machine(one: Hardware, other: Hardware) -> dict[str, tuple[object, object]]:
    return {name: (getattr(one, name), getattr(other, name)) for name in unlike_fields(one, other)}


def _differ(subject: Subject, values: Mapping[str, tuple[object, object]]) -> Difference:
    texts = [f"{name} {_word(mine)} in A, {_word(others)} in B" for name, (mine, others) in values.items()]
    return Difference(subject, "; ".join(texts))


def _word(value: object) -> str:
    if value is None or value == []:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _grouped(cells: Iterable[Cell], free: set[Subject]) -> dict[Key, list[Cell]]:
    """By artifact and key without what the subject is."""
    groups: dict[Key, list[Cell]] = {}
    for cell in cells:
        row = cell.row
        runtime, mode, threads, *usage, unusual = row.key
        parts = {
            "artifact": cell.profile.artifact,
            "runtime": runtime,
            "mode": mode,
            "threads": threads,
            "options": unusual,
        }
        fixed = [value for name, value in parts.items() if name not in free]
        groups.setdefault((*fixed, *usage), []).append(cell)
    return groups


def _pair(a: Sequence[Cell], b: Sequence[Cell], free: set[Subject]) -> tuple[Cell, Cell]:
    if len(a) == len(b) == 1:
        return a[0], b[0]
    unequal = [(one, other) for one, other in product(a, b) if one.row.key != other.row.key]
    forward = [(one, other) for one, other in unequal if one.row.key < other.row.key]
    for choice in (unequal, forward):
        if len(choice) == 1:
            return choice[0]
    held = [_some(side) for side in (a, b)]
    subject = " and ".join(sorted(free - {"artifact"}))
    across = f" across {subject}" if subject else ""
    raise InputError(f"not clear which rows to compare{across}: A has {held[0]}. B has {held[1]}")


def _some(cells: Sequence[Cell]) -> str:
    told = "; ".join(label(cell) for cell in cells[:_TOLD])
    return f"{told}; and {len(cells) - _TOLD} more" if len(cells) > _TOLD else told
