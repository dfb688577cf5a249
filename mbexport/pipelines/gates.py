"""Whether a cell holds what its gates ask: one result a gate, and a runtime or machine where it speaks of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from mbexport import hardware
from mbexport.analysis.diff import diff
from mbexport.bench.rows import row_of
from mbexport.bundle.evidence import profiles_of
from mbexport.errors import DocumentError, InputError
from mbexport.thresholds import DIFF_ABOVE_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.bench.rows import BenchRow
    from mbexport.evaluate import EvaluationReport, EvaluationRow
    from mbexport.pipelines.document import GatesTable

_MEGA = 1e6


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate of one cell."""

    gate: str
    """As the pipeline file calls it."""
    where: str | None
    """A runtime or a machine."""
    passed: bool | None
    """None where nothing was judged; ``reason`` says why."""
    value: float | None
    limit: float | None
    reason: str

    @property
    def text(self) -> str:
        return f"{self.gate} on {self.where}" if self.where else self.gate


@dataclass(frozen=True)
class Evidence:
    """What is known of a cell."""

    artifact: Artifact
    evaluation: EvaluationReport | None
    """None where no gate asks for accuracy."""
    rows: Mapping[str, Sequence[BenchRow]]
    """As measured, by machine's slug."""
    profiles: Path


def judge(gates: GatesTable, evidence: Evidence, folder: Path) -> list[GateResult]:
    """Args:
        gates: limits; those that are None ask nothing.
        evidence: of the cell.
        folder: which the baseline's path is relative to.

    Raises:
        DocumentError: a profile is damaged or of a newer schema version.
    """
    found = [*_sizes(gates, evidence.artifact)]
    for row in evidence.evaluation.rows if evidence.evaluation else ():
        found += _accuracies(gates, row)
    for name, budget in (("p50_ms", gates.p50_ms), ("p99_ms", gates.p99_ms)):
        if isinstance(budget, dict):
            for machine, limit in budget.items():
                found += _elsewhere(name, machine, limit, evidence)
        elif budget is not None:
            found += _here(name, budget, evidence)
    if gates.baseline is not None:
        slower = DIFF_ABOVE_SHARE if gates.max_slower is None else gates.max_slower
        for machine in evidence.rows or [hardware.detect().slug]:
            found.append(_regression(folder / gates.baseline, slower, evidence, machine))
    return found


def _sizes(gates: GatesTable, artifact: Artifact) -> Iterator[GateResult]:
    if gates.max_size_mb is not None:
        for name in sorted(set(artifact.manifest.models.values())):
            size_mb = (artifact.path / name).stat().st_size / _MEGA
            yield _at_most("max_size_mb", name, size_mb, gates.max_size_mb, "MB")


def _accuracies(gates: GatesTable, row: EvaluationRow) -> Iterator[GateResult]:
    for name, share, least in (("min_top1", row.top1, gates.min_top1), ("min_top5", row.top5, gates.min_top5)):
        if least is not None:
            reason = f"{share:.4f}, at least {least:g}"
            yield _result(name, row.runtime, share >= least, share, least, reason)
    flips = None if row.agreement is None else 1 - row.agreement
    for name, lost, most in (("max_drop", row.top1_drop, gates.max_drop), ("max_flips", flips, gates.max_flips)):
        if most is not None and lost is not None:
            yield _at_most(name, row.runtime, lost, most, "")
        elif most is not None and row.precision == "f32":
            yield _result(name, row.runtime, True, 0.0, most, "float32 itself")
        elif most is not None:
            yield _result(name, row.runtime, None, None, most, "no float32 artifact beside it to compare with")


def _latencies(name: str, limit_ms: float, rows: Sequence[BenchRow]) -> Iterator[GateResult]:
    """Of each runtime at its default precision."""
    shipped = [row for row in rows if row.mode == "production" and row.scenario == "single-stream"]
    if not shipped:
        yield _result(name, None, None, None, limit_ms, "nothing was measured")
    for row in shipped:
        measured_s = row.p50_s if name == "p50_ms" else row.p99_s
        if row.verdict == "invalid":
            yield _result(name, row.runtime, False, None, limit_ms, f"the measurement is invalid: {row.reasons[0]}")
        elif measured_s is None:
            yield _result(name, row.runtime, False, None, limit_ms, f"{row.samples} samples are too few for a p99")
        else:
            yield _at_most(name, row.runtime, measured_s * 1e3, limit_ms, "ms")


def _here(name: str, limit_ms: float, evidence: Evidence) -> Iterator[GateResult]:
    """On every machine that was measured."""
    if not evidence.rows:
        yield from _latencies(name, limit_ms, [])
    for machine, rows in evidence.rows.items():
        found = _latencies(name, limit_ms, rows)
        yield from found if len(evidence.rows) == 1 else _on(machine, found)


def _elsewhere(name: str, machine: str, limit_ms: float, evidence: Evidence) -> Iterator[GateResult]:
    """On a machine by name: as measured just now where it was, else as its profile has it."""
    rows = evidence.rows.get(machine)
    if rows is None:
        profile = profiles_of(evidence.artifact, [evidence.profiles]).get(machine)
        if profile is None:
            yield _result(name, machine, None, None, limit_ms, f"not measured on {machine}")
            return
        rows = [row_of(profile.artifact, row) for row in profile.measurements]
    yield from _on(machine, _latencies(name, limit_ms, rows))


def _on(machine: str, found: Iterable[GateResult]) -> Iterator[GateResult]:
    for result in found:
        yield msgspec.structs.replace(result, where=f"{machine} {result.where or ''}".strip())


def _regression(baseline: Path, slower: float, evidence: Evidence, machine: str) -> GateResult:
    slug = evidence.artifact.manifest.slug
    stored = baseline / f"{slug}.json" if baseline.is_dir() else baseline
    if not stored.is_file():
        return _result("baseline", machine, None, None, slower, f"{baseline} has no profile of {slug}")
    own = evidence.profiles / machine / f"{slug}.json"
    try:
        report = diff(stored, own, across=("artifact", "inputs", "runtime-version"), threshold=slower)
    except DocumentError as error:  # it would never be judged, and nobody would notice
        return _result("baseline", machine, False, None, slower, str(error))
    except InputError as error:
        return _result("baseline", machine, None, None, slower, str(error))
    worst = max(report.rows, key=lambda row: row.ratio)
    reason = f"{worst.runtime} {worst.mode} takes {worst.ratio:.3f} x the baseline's p50, {worst.verdict}"
    return _result("baseline", machine, report.passed, worst.ratio - 1, slower, reason)


def _at_most(gate: str, where: str | None, value: float, limit: float, unit: str) -> GateResult:
    return _result(gate, where, value <= limit, value, limit, f"{value:.4g} {unit}".rstrip() + f", at most {limit:g}")


def _result(
    gate: str, where: str | None, passed: bool | None, value: float | None, limit: float | None, reason: str
) -> GateResult:
    return GateResult(gate=gate, where=where, passed=passed, value=value, limit=limit, reason=reason)
