"""Measured latencies: tables, reasons, and where they were stored."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport.spec import size_text
from mbexport_cli.render.operators import operators
from mbexport_cli.render.parts import heading, milliseconds, new_table, note, reasons, verdict

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.bench import BenchReport, BenchRow
    from mbexport.bench.rows import TakenOver
    from mbexport.profile import ColdStart


def taken_over_text(taken: "TakenOver") -> str:
    """A line on what an earlier bench left."""
    began = dt.datetime.fromisoformat(taken.measured_from).astimezone()
    processes = f"{taken.processes} process{'' if taken.processes == 1 else 'es'}"
    return f"{processes} taken over from {began:%H:%M}, when a bench was stopped; bench --fresh measures them again"


def benched(artifacts: "Sequence[Artifact]", report: "BenchReport") -> Iterator[RenderableType]:
    for artifact in artifacts:
        yield from heading(artifact)
        rows = [row for row in report.rows if row.artifact == artifact.manifest.slug]
        if rows:
            yield from latencies(rows)
            yield ""
            yield _cold(rows)
            if any(row.prepared for row in rows):
                yield ""
                yield _prepared(rows)
            yield ""
    for table in report.operators:
        yield from operators(table)
        yield ""
    if report.rows:
        yield _bought(report.rows)
    if report.resumed:
        yield note(f"{report.resumed} rows were finished by an earlier bench that was stopped")
    yield from stored(report)


def latencies(rows: "Sequence[BenchRow]") -> Iterator[RenderableType]:
    """Percentiles in milliseconds, a table for each setting, and the reasons of rows that are not ok."""
    times = ("p50 ms", "p90 ms", "p99 ms")
    for setting in sorted({_setting(row) for row in rows}):
        table = new_table("latency", "mode", *times, "verdict", right=times)
        chosen = [row for row in rows if _setting(row) == setting]
        for row in chosen:
            percentiles = (milliseconds(row.p50_s), milliseconds(row.p90_s), milliseconds(row.p99_s))
            table.add_row(row.runtime, f"{row.mode} {row.precision}", *percentiles, verdict(row.verdict))
        yield table
        yield _setting_text(chosen[0])
        yield from reasons((row.runtime, row.mode, row.reasons) for row in chosen)


def stored(report: "BenchReport") -> Iterator[RenderableType]:
    """Where the rows lie, and those that could not be measured."""
    for row in report.failed:
        place = f"{row.artifact} {row.runtime} {row.mode}"
        yield Text(f"{place}: could not be measured: {row.reason}", style="bold red")
    for row in report.unprepared:
        place = f"{row.artifact} {row.runtime} {row.mode}"
        yield Text(f"{place}: measured, but did not start with what its engine kept: {row.reason}", style="bold red")
    for path in report.profiles.values():
        yield f"profile:  {path}"
    for reason in report.replaced:
        yield note(reason)


def _setting(row: "BenchRow") -> tuple[str, int, int, int, str]:
    return row.scenario, row.concurrency, row.threads, row.batch, _unusual(row)


def _unusual(row: "BenchRow") -> str:
    """The model file and options that differ from the usual ones."""
    model = [] if row.model is None else [row.model]
    return " ".join([*model, *(f"{name}={value}" for name, value in sorted(row.asked_options.items()))])


def _setting_text(row: "BenchRow") -> str:
    size = f", size: {size_text(row.input_size)}" if row.input_size else ""
    scenario = "" if row.scenario == "single-stream" else f", {row.scenario}: {row.concurrency} calls at once"
    unusual = f", {_unusual(row)}" if _unusual(row) else ""
    reasons = " and ".join(row.thread_plan.reasons)
    return f"threads: {row.threads}, batch: {row.batch}{size}{scenario}{unusual}; {reasons}"


def _cold(rows: "Sequence[BenchRow]") -> RenderableType:
    figures = ("start", "import", "load", "first", "memory MB", "pictures/s")
    table = new_table("cold start, ms", "mode", *figures, right=figures)
    for row in rows:
        starts = (_parts(row.start_s), _parts(row.import_s), _parts(row.load_s), _parts(row.first_inference_s))
        table.add_row(row.runtime, row.mode, *starts, f"{row.memory_bytes / 1e6:.0f}", f"{row.throughput_per_s:.1f}")
    return table


def _prepared(rows: "Sequence[BenchRow]") -> RenderableType:
    """Beside the usual load, that of a process which found what the engine had kept."""
    figures = ("load", "load kept", "to first answer", "kept")
    table = new_table("kept model, ms", "mode", *figures, right=figures)
    for row in rows:
        if row.prepared is not None:
            whole_s, kept_s = (_whole_s(start) for start in (row, row.prepared))
            loads = (_parts(row.load_s), _parts(row.prepared.load_s))
            table.add_row(row.runtime, row.mode, *loads, _parts(whole_s), _parts(kept_s))
    return table


def _whole_s(start: "BenchRow | ColdStart") -> float | None:
    if start.start_s is None:
        return None
    return start.start_s + start.import_s + start.load_s + start.first_inference_s


def _parts(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f}"


def _bought(rows: "Sequence[BenchRow]") -> str:
    """What the time that it took has bought."""
    widths = sorted(max(row.p50_s - row.p50_ci_s[0], row.p50_ci_s[1] - row.p50_s) / row.p50_s for row in rows)
    tails = sum(row.p99_s is not None for row in rows)
    return (
        f"p50 is known to {widths[len(widths) // 2]:.1%} (median row), {widths[-1]:.1%} (worst); "
        f"p99 in {tails} of {len(rows)} rows"
    )
