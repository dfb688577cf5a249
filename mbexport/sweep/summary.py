"""``sweep.md``: the page that says what became of every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import serde

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.sweep.run import CellResult, SweepReport

NAME = "sweep.md"


def write_summary(report: SweepReport, out: Path) -> Path:
    """Write the page whole or not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    path = out / NAME
    serde.write_atomic(path, "\n".join(_lines(report)).encode())
    return path


def _lines(report: SweepReport) -> Iterator[str]:
    failed = [result for result in report.cells if not result.passed]
    yield "# Sweep"
    yield ""
    yield f"{len(report.cells)} cells, {len(failed)} failed."
    yield ""
    yield "| cell | result | least SQNR margin, dB | runtime | mode | precision | p50, ms | p99, ms | verdict |"
    yield "|---|---|---:|---|---|---|---:|---:|---|"
    for result in report.cells:
        yield from _rows(result)
    yield ""
    for result in failed:
        yield f"- {result.name}: {result.error}"
    yield ""


def _rows(result: CellResult) -> Iterator[str]:
    head = f"| {result.name} | {'passed' if result.passed else '**failed**'} | {margin_text(result)} |"
    if not result.rows:
        yield f"{head} - | - | - | - | - | - |"
    for row in result.rows:
        p99 = "-" if row.p99_s is None else f"{row.p99_s * 1e3:.2f}"
        yield f"{head} {row.runtime} | {row.mode} | {row.precision} | {row.p50_s * 1e3:.2f} | {p99} | {row.verdict} |"


def margin_text(result: CellResult) -> str:
    """How far the worst row stands over its limit."""
    rows = result.validation.rows if result.validation else []
    margins = [row.margin_db for row in rows if row.margin_db is not None]
    return f"{min(margins):.1f}" if margins else "-"
