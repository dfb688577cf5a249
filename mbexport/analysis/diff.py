"""Two profiles, or two machines' folders of them, compared row by row: did this get slower?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.analysis.alike import Cell, Subject, differences, label, paired, unlike
from mbexport.analysis.change import Change, ChangeVerdict, change_of
from mbexport.bench import statistics
from mbexport.bench.disturbances import disturbances
from mbexport.errors import InputError
from mbexport.profile import LatencyProfile, Scenario, Verdict
from mbexport.profiles import list_profiles, read_folder, read_profile, same_machine
from mbexport.quantities import Mode
from mbexport.thresholds import DIFF_ABOVE_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_TOLD = 3
"""How many rows or differences an error message names."""


class RowName(msgspec.Struct, frozen=True, kw_only=True):
    """Which row; the names are the keys of the JSON report."""

    artifact: str
    runtime: str
    mode: Mode
    precision: str
    threads: int
    batch: int
    scenario: Scenario
    concurrency: int
    unusual: str
    """A model file or engine options other than the usual ones, in words; empty where there are none."""


class DiffRow(RowName, frozen=True, kw_only=True):
    """One row of A beside its like of B, under A's name. Seconds; p50 and p99 are over all samples, p99 None where they
    are too few. ``ratio`` and its interval are those of :func:`mbexport.analysis.change.change_of`, of p50 or, offline,
    of the time per picture that the throughput makes.
    """

    b_precision: str
    """Another than A's only where that is the question, or comes with it."""
    a_p50_s: float
    b_p50_s: float
    ratio: float
    ratio_ci: tuple[float, float] | None
    a_p99_s: float | None
    b_p99_s: float | None
    a_verdict: Verdict
    """Of the measurement itself, as the profile has it."""
    b_verdict: Verdict
    verdict: ChangeVerdict
    reason: str | None
    differences: list[str]
    """In what the rows differ, which the caller named as the subject or which comes with it."""


class NotCompared(RowName, frozen=True, kw_only=True):
    """A row that both sides have and that says nothing."""

    reason: str


class DiffReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``profile diff`` found; the names are the keys of the JSON report."""

    a: str
    b: str
    across: list[Subject]
    threshold: float
    """As a fraction of 1."""
    passed: bool
    """No row is slower."""
    rows: list[DiffRow]
    only_a: list[RowName]
    only_b: list[RowName]
    not_compared: list[NotCompared]
    notes: list[str]


def diff(a: Path, b: Path, *, across: Sequence[Subject] = (), threshold: float = DIFF_ABOVE_SHARE) -> DiffReport:
    """Compare B with A.

    Args:
        a: a profile, a machine's folder of profiles, or a folder that holds one machine's folder.
        b: the same.
        across: in what the two may differ, since that is the question.
        threshold: the change, as a fraction of 1, from which a row is faster or slower.

    Raises:
        InputError: a side holds no profile, or several machines; nothing is in both; or rows are not alike in what
            ``across`` does not name.
        DocumentError: a profile is damaged or of a newer schema version.
    """
    cells_a, cells_b = cells_of(a), cells_of(b)
    pairs = paired(cells_a, cells_b, across)
    if not pairs.both:
        raise InputError(f"nothing to compare: {a} has {_some(cells_a)}; {b} has {_some(cells_b)}")
    _refuse_unlike(a, b, pairs.both, across)
    unusable = {pair: reason for pair in range(len(pairs.both)) if (reason := _unusable(*pairs.both[pair]))}
    rows = [_row(*pair, threshold) for number, pair in enumerate(pairs.both) if number not in unusable]
    if not rows:
        raise InputError(f"nothing to compare: {'; '.join(dict.fromkeys(unusable.values()))}")
    return DiffReport(
        a=str(a),
        b=str(b),
        across=list(dict.fromkeys(across)),
        threshold=threshold,
        passed=all(row.verdict != "slower" for row in rows),
        rows=rows,
        only_a=[_name(cell) for cell in pairs.only_a],
        only_b=[_name(cell) for cell in pairs.only_b],
        not_compared=[
            NotCompared(**msgspec.structs.asdict(_name(pairs.both[number][0])), reason=reason)
            for number, reason in unusable.items()
        ],
        notes=_moved_together(rows, threshold) if not set(across) - {"runtime-version", "options"} else [],
    )


def cells_of(path: Path) -> list[Cell]:
    """The rows of a profile, of a machine's folder, or of a folder that holds one machine's folder.

    Raises:
        InputError: there is none, or profiles of several machines.
        DocumentError: a profile is damaged or of a newer schema version.
    """
    if path.is_dir():
        found = list((read_folder(path) or list_profiles([path])).values())
    elif path.exists():
        found = [read_profile(path)]
    else:
        raise InputError(f"{path} is neither a profile nor a folder of profiles; make one with: mbexport bench")
    if not found:
        raise InputError(f"no profiles in {path}; make one with: mbexport bench ARTIFACT --profiles {path}")
    machines = _machines(found)
    if len(machines) > 1:
        raise InputError(f"{path} holds profiles of {len(machines)} machines, {_names(machines)}; name one's folder")
    return [Cell(profile, row) for profile in found for row in profile.measurements]


def _machines(profiles: Iterable[LatencyProfile]) -> list[LatencyProfile]:
    """One profile of each machine."""
    machines: list[LatencyProfile] = []
    for profile in profiles:
        if not any(same_machine(profile.hardware, known.hardware) for known in machines):
            machines.append(profile)
    return machines


def _names(machines: Sequence[LatencyProfile]) -> str:
    return ", ".join(f"{machine.hardware.slug} ({machine.artifact})" for machine in machines[:_TOLD])


def _refuse_unlike(a: Path, b: Path, pairs: Iterable[tuple[Cell, Cell]], across: Iterable[Subject]) -> None:
    found = dict.fromkeys(difference for pair in pairs for difference in unlike(*pair, across))
    if not found:
        return
    texts = [difference.text for difference in found]
    more = f" and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    options = " ".join(f"--across {subject}" for subject in dict.fromkeys(difference.subject for difference in found))
    raise InputError(
        f"cannot compare {a} with {b}: {'; '.join(texts[:_TOLD])}{more}. If that is the question, say {options}"
    )


def _unusable(a: Cell, b: Cell) -> str | None:
    for side, cell in (("A", a), ("B", b)):
        if cell.row.verdict == "invalid":
            return f"invalid in {side}: {'; '.join(cell.row.reasons) or 'no reason given'}"
    return None


def _row(a: Cell, b: Cell, threshold: float) -> DiffRow:
    if a.row.replicates == b.row.replicates:  # the same file twice is no second draw
        change = Change(ratio=1.0, ratio_ci=(1.0, 1.0), verdict="same")
    else:
        change = _undisturbed(a, b, change_of(_times_s(a), _times_s(b), threshold))
    a_s, b_s = ([sample * 1e-9 for sample in cell.row.samples_ns] for cell in (a, b))
    return DiffRow(
        **msgspec.structs.asdict(_name(a)),
        b_precision=b.row.precision,
        a_p50_s=statistics.median(a_s),
        b_p50_s=statistics.median(b_s),
        a_p99_s=statistics.percentile(a_s, 0.99),
        b_p99_s=statistics.percentile(b_s, 0.99),
        a_verdict=a.row.verdict,
        b_verdict=b.row.verdict,
        **msgspec.structs.asdict(change),
        differences=[difference.text for difference in differences(a, b)],
    )


def _undisturbed(a: Cell, b: Cell, change: Change) -> Change:
    """The change, unless something from outside is known to have disturbed a side: then it tells nothing."""
    for side, cell in (("A", a), ("B", b)):
        known = "; ".join(disturbances(cell.row.replicates))
        if known:
            return msgspec.structs.replace(change, verdict="too noisy to tell", reason=f"in {side} {known}")
    return change


def _times_s(cell: Cell) -> list[float]:
    """Each process's p50; offline, where throughput is the figure, its seconds per picture."""
    if cell.row.scenario == "offline":
        return [1 / replicate.throughput_per_s for replicate in cell.row.replicates]
    found = [replicate.samples_ns for replicate in cell.row.replicates]
    return [statistics.median([sample * 1e-9 for sample in samples]) for samples in found if samples]


def _name(cell: Cell) -> RowName:
    names = ("runtime", "mode", "precision", "threads", "batch", "scenario", "concurrency", "unusual")
    return RowName(artifact=cell.profile.artifact, **{name: getattr(cell.row, name) for name in names})


def _some(cells: Sequence[Cell]) -> str:
    left = len(cells) - _TOLD
    more = f" and {left} more row{'' if left == 1 else 's'}" if left > 0 else ""
    return ", ".join(label(cell) for cell in cells[:_TOLD]) + more if cells else "no row"


def _moved_together(rows: Sequence[DiffRow], threshold: float) -> list[str]:
    """A word where like rows of several engines all moved one way: no engine does that to the others."""
    engines: dict[str, list[float]] = {}
    for row in rows:
        engines.setdefault(row.runtime, []).append(row.ratio)
    medians = [statistics.median(ratios) for ratios in engines.values()]
    slower, faster = min(medians) > 1 + threshold, max(medians) < 1 / (1 + threshold)
    if len(medians) < 2 or not (slower or faster):
        return []
    moves = ", ".join(f"{name} {median - 1:+.0%}" for name, median in zip(engines, medians, strict=True))
    note = f"all runtimes moved together ({moves}), as when the machine itself runs at another speed"
    return [f"{note}; measure both again, one right after the other, before you blame the network"]
