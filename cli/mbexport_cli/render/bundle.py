"""A bundle, and what was found of one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType

from mbexport_cli.render.parts import decibels, heading, new_table, note, verdict

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.bundle.layouts.write import LayoutReport
    from mbexport.bundle.make import BundleReport
    from mbexport.bundle.rebuild import RebuildReport
    from mbexport.bundle.verify import VerifyReport
    from mbexport.publish import Published

_MEGA = 1e6


def bundled(artifact: "Artifact", report: "BundleReport") -> Iterator[RenderableType]:
    yield from heading(artifact)
    for entry in report.artifacts:
        yield f"{entry.precision}: {entry.slug}"
    signed = "signed" if report.signed else "not signed"
    yield f"{report.files} files, {report.size_bytes / _MEGA:.1f} MB, {signed}"
    yield f"sha256 {report.sha256}"
    yield f"bundle: {report.bundle}"


def laid_out(report: "LayoutReport") -> Iterator[RenderableType]:
    yield from report.files
    if report.measured_on is not None:
        yield f"threads and batches as measured on {report.measured_on}"
    yield f"{report.layout}: {report.path}"


def published(report: "Published") -> Iterator[RenderableType]:
    yield from report.files
    yield f"{report.url}: {'was there already' if report.was_there else 'published'}"


def verified(report: "VerifyReport") -> Iterator[RenderableType]:
    yield f"{report.bundle}: {report.files} files, each as it was made"
    yield f"sha256 {report.sha256}"
    yield f"signature: {report.signature}"
    if report.signature_fault:
        yield note(report.signature_fault)
    for artifact in dict.fromkeys(row.artifact for row in report.rows):
        yield ""
        yield artifact
        table = new_table("runtime", "SQNR dB", "least", "verdict", right=("SQNR dB", "least"))
        rows = [row for row in report.rows if row.artifact == artifact]
        for row in rows:
            distance = decibels(row.sqnr_db, exact=row.passed)
            table.add_row(
                row.runtime, distance, f"{row.threshold_db:.1f}", verdict("passed" if row.passed else "FAILED")
            )
        yield table
        for row in rows:
            if row.reason:
                yield note(f"{row.runtime}: {row.reason}")


def rebuilt(report: "RebuildReport") -> Iterator[RenderableType]:
    for artifact in dict.fromkeys(part.artifact for part in report.parts):
        yield artifact
        table = new_table("part", "result")
        parts = [part for part in report.parts if part.artifact == artifact]
        for part in parts:
            table.add_row(part.part, part.result if part.result != "differs" else note("DIFFERS"))
        yield table
        for part in parts:
            if part.detail:
                yield f"{part.part}: {part.detail}"
        yield ""
    yield "the same bytes as before" if report.identical else "not the same bytes as before"
    yield f"bundle: {report.bundle}"
