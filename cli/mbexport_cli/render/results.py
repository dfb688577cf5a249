"""Accuracy and latency."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport.spec import size_text
from mbexport_cli.documents import is_shipped
from mbexport_cli.render.build import graph, rollbacks
from mbexport_cli.render.explain import explanations
from mbexport_cli.render.latency import latencies, stored
from mbexport_cli.render.parts import decibels, flipped, heading, new_table, note, reasons, verdict
from mbexport_cli.render.tune import tuned_before

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.bench import BenchReport
    from mbexport.export import BuildResult
    from mbexport.profile import LatencyProfile, PublishedProfile
    from mbexport.validate import ValidationReport


def validated(artifact: "Artifact", report: "ValidationReport") -> Iterator[RenderableType]:
    yield from heading(artifact)
    yield from validation(report)


def validation(report: "ValidationReport") -> Iterator[RenderableType]:
    figures = ("SQNR dB", "least", "max error", "top-1")
    table = new_table("accuracy", "mode", "precision", *figures, "verdict", right=figures)
    for row in report.rows:
        table.add_row(
            row.runtime,
            row.mode,
            row.precision.effective or "-",
            decibels(row.sqnr_db, exact=row.passed),
            f"{row.threshold_db:.1f}",
            "-" if row.max_abs_error is None else f"{row.max_abs_error:.1e}",
            "-" if row.top1_agreement is None else f"{row.top1_agreement:.0%}",
            verdict("passed" if row.passed else "FAILED"),
        )
    yield table
    yield from _limits(report)
    yield from _tried(report)
    yield from reasons((row.runtime, row.mode, [row.reason] if row.reason else []) for row in report.rows)
    yield from _flips(report)
    if report.coverage is not None and report.coverage.missed:
        crossed = f"{report.coverage.crossed} of {report.coverage.knees}"
        yield f"the reference pictures cross {crossed} knees of the activations, not {_some(report.coverage.missed)}"
    if len(report.sizes) > 1:
        yield f"the worst of {', '.join(size_text(size) for size in report.sizes)}"
    yield from explanations(report.explanations)
    yield ""


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _tried(report: "ValidationReport") -> Iterator[RenderableType]:
    """On what, and where it ran."""
    batches = " and ".join(map(str, report.batches))
    golden = f"{report.golden} golden" if report.golden else "no golden"
    yield f"tried in batches of {batches}; {golden} pictures, {report.images} of your own"
    placed: dict[str, list[tuple[str, str]]] = {}
    for row in report.rows:
        if row.placement:
            where = ", ".join(f"{count} on {device}" for device, count in row.placement.items())
            placed.setdefault(row.runtime, []).append((row.mode, where))
    told = [f"{runtime}{mode}: {where}" for runtime, found in placed.items() for mode, where in _merged(found)]
    yield f"nodes of {'; '.join(told)}" if told else "no node was run"


def _merged(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The modes need no names where both placed alike."""
    alike = len({where for _, where in found}) == 1
    return [("", found[0][1])] if alike else [(f" {mode}", where) for mode, where in found]


def _limits(report: "ValidationReport") -> Iterator[RenderableType]:
    origins = {f"{row.threshold_db:.1f}": row.threshold_origin for row in report.rows}
    yield from (f"least {least_db} dB: {origin}" for least_db, origin in origins.items())


def _flips(report: "ValidationReport") -> Iterator[RenderableType]:
    for row in report.rows:
        for flip in row.flips:
            yield note(f"{row.runtime} {row.mode}: {flipped(flip)}")


def run(built: "BuildResult", checked: "ValidationReport", measured: "BenchReport") -> Iterator[RenderableType]:
    yield from heading(built.artifact)
    yield from graph(built.artifact.manifest.graph)
    if any(step.skipped or step.declined for step in built.artifact.manifest.graph.passes):
        yield from rollbacks(built.artifact.manifest.graph)
        yield ""
    yield from validation(checked)
    yield from latencies(measured.rows)
    yield ""
    yield f"artifact: {built.artifact.path}"
    yield from stored(measured)


def profiles(
    measured: "Mapping[Path, LatencyProfile]", published: "Mapping[Path, PublishedProfile]", shipped: Path
) -> Iterator[RenderableType]:
    """Measured ones grouped by machine, then by artifact; those that travel with mbexport are called so. Behind them
    what was published and not measured.
    """
    from mbexport.bench import rows_of

    if not measured and not published:
        yield "no profiles yet; measure with: mbexport bench ARTIFACT"
    machine = ""
    for path, profile in sorted(measured.items(), key=lambda item: (str(item[0].parent), str(item[0]))):
        origin = "shipped with mbexport" if is_shipped(path, shipped) else "measured here"
        if machine != str(path.parent):
            machine = str(path.parent)
            yield Text(f"{profile.hardware.slug} ({profile.hardware.cpu})", style="bold")
            yield f"{origin}: {path.parent}"
        yield ""
        yield Text(profile.artifact, style="cyan")
        yield from latencies(rows_of(profile))
        yield from map(tuned_before, profile.tuned)
    for path, figures in published.items():
        if measured:
            yield ""
        yield from _published(figures, path)


def _published(profile: "PublishedProfile", path: Path) -> Iterator[RenderableType]:
    yield Text(profile.device, style="bold")
    yield note(f"{profile.kind}: {path}")
    for source in dict.fromkeys(row.source for row in profile.rows):
        table = new_table("network", "ms", right=("ms",))
        for row in profile.rows:
            if row.source == source:
                table.add_row(row.artifact, f"{row.latency_s * 1e3:.1f}")
        yield ""
        yield table
        yield f"source: {source}"
