"""All rich output. Times are shown in milliseconds, sizes in MB; nothing is ever cut or wrapped to fit a terminal.

Every table is narrower than 80 columns with the names and figures that occur; what has no such limit (reasons, paths)
stands on lines of its own below the table.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mbexport_cli.documents import is_shipped

if TYPE_CHECKING:
    from mbexport.artifact import Artifact, GraphReport
    from mbexport.bench import BenchReport, BenchRow
    from mbexport.catalog import Info, Published
    from mbexport.doctor import Diagnosis
    from mbexport.pipeline import BuildResult
    from mbexport.profile import LatencyProfile
    from mbexport.validate import ValidationReport
    from mbexport_cli.progress import Progress as Report

_UNLIMITED = 10_000
"""Columns of the result console: lines are left to the terminal, so nothing is cut and piped text is whole."""
_STYLES = {"passed": "green", "ok": "green", "noisy": "yellow", "FAILED": "bold red", "invalid": "bold red"}
RANDOM = "random weights: for graph and latency only"


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to main; rich's own way expects the real stdout in ``sys.stdout``."""
        raise BrokenPipeError


def write(rendered: Iterable[RenderableType], stream: TextIO) -> None:
    """Print to a stream; colours only where it is a terminal."""
    console = _Results(file=stream, width=_UNLIMITED, highlight=False, markup=False, emoji=False)
    for item in rendered:
        console.print(item)


@contextlib.contextmanager
def live(stream: TextIO) -> Iterator["Report"]:
    """A line that says what is being done, with a bar once a share of the whole is known; it vanishes at the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    console = Console(file=stream, highlight=False, markup=False)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def report(message: str, share: float | None = None, /) -> None:
            progress.update(task, description=message, total=None if share is None else 1.0, completed=share or 0.0)

        yield report


def build(result: "BuildResult") -> Iterator[RenderableType]:
    yield from heading(result.artifact)
    yield from graph(result.artifact.manifest.graph)
    steps = _table("pass", "changed", "SQNR dB", right=("SQNR dB",))
    for step in result.artifact.manifest.graph.passes:
        sqnr = _decibels(step.sqnr_db, exact=True) if step.modified else "-"
        steps.add_row(step.name, "yes" if step.modified else "no", sqnr)
    yield steps
    for step in result.artifact.manifest.graph.passes:
        if step.skipped:
            yield _note(f"{step.name} was skipped: {step.skipped}")
    yield ""
    yield f"built in {sum(result.timings_s.values()):.1f} s: {result.artifact.path}"


def heading(artifact: "Artifact") -> Iterator[RenderableType]:
    """The network's name, and what its weights are good for."""
    yield Text(artifact.manifest.slug, style="bold")
    if artifact.manifest.weights.kind == "random":
        yield _note(RANDOM)
    yield ""


def graph(report: "GraphReport") -> Iterator[RenderableType]:
    """Nodes before and after, operator by operator."""
    table = _table("graph", "before", "after", right=("before", "after"))
    ops = {**report.ops_before, **report.ops}
    for op in sorted(ops, key=lambda op: (-report.ops_before.get(op, 0), op)):
        table.add_row(op, str(report.ops_before.get(op, "-")), str(report.ops.get(op, "-")))
    table.add_row("nodes", str(report.nodes_before), str(report.nodes), style="bold")
    yield table
    yield ""


def validated(artifact: "Artifact", report: "ValidationReport") -> Iterator[RenderableType]:
    yield from heading(artifact)
    yield from validation(report)


def benched(artifact: "Artifact", report: "BenchReport") -> Iterator[RenderableType]:
    yield from heading(artifact)
    yield from bench(report)


def validation(report: "ValidationReport") -> Iterator[RenderableType]:
    figures = ("SQNR dB", "least dB", "max error", "top-1")
    table = _table("accuracy", "mode", "precision", *figures, "verdict", right=figures)
    for row in report.rows:
        table.add_row(
            row.runtime,
            row.mode,
            row.precision.effective or "-",
            _decibels(row.sqnr_db, exact=row.passed),
            f"{row.threshold_db:.1f}",
            "-" if row.max_abs_error is None else f"{row.max_abs_error:.1e}",
            "-" if row.top1_agreement is None else f"{row.top1_agreement:.0%}",
            _verdict("passed" if row.passed else "FAILED"),
        )
    yield table
    yield from _reasons((row.runtime, row.mode, [row.reason] if row.reason else []) for row in report.rows)
    yield ""


def bench(report: "BenchReport") -> Iterator[RenderableType]:
    yield from latencies(report.rows)
    if report.rows:
        yield ""
        yield _cold(report.rows)
        yield ""
    yield from _stored(report)


def run(built: "BuildResult", checked: "ValidationReport", measured: "BenchReport") -> Iterator[RenderableType]:
    yield from heading(built.artifact)
    yield from graph(built.artifact.manifest.graph)
    yield from validation(checked)
    yield from latencies(measured.rows)
    yield ""
    yield f"artifact: {built.artifact.path}"
    yield from _stored(measured)


def latencies(rows: "Sequence[BenchRow]") -> Iterator[RenderableType]:
    """Percentiles in milliseconds, a table for each thread count and batch, and the reasons of rows that are not ok."""
    times = ("p50 ms", "p90 ms", "p99 ms")
    for threads, batch in sorted({(row.threads, row.batch) for row in rows}):
        table = _table("latency", "mode", *times, "verdict", right=times)
        chosen = [row for row in rows if (row.threads, row.batch) == (threads, batch)]
        for row in chosen:
            percentiles = (_milliseconds(row.p50_s), _milliseconds(row.p90_s), _milliseconds(row.p99_s))
            table.add_row(row.runtime, f"{row.mode} {row.precision}", *percentiles, _verdict(row.verdict))
        yield table
        yield f"threads: {threads}, batch: {batch}"
        yield from _reasons((row.runtime, row.mode, row.reasons) for row in chosen)


def _stored(report: "BenchReport") -> Iterator[RenderableType]:
    """Where the rows lie, and those that could not be measured."""
    for row in report.failed:
        yield Text(f"{row.runtime} {row.mode}: could not be measured: {row.reason}", style="bold red")
    if report.profile is not None:
        yield f"profile:  {report.profile}"
    if report.replaced:
        yield _note(report.replaced)


def _cold(rows: "Sequence[BenchRow]") -> RenderableType:
    figures = ("load ms", "first ms", "pictures/s", "memory MB", "samples")
    table = _table("cold start", "mode", *figures, right=figures)
    for row in rows:
        cold = (_milliseconds(row.load_s), _milliseconds(row.first_inference_s))
        rest = (f"{row.throughput_per_s:.1f}", f"{row.memory_bytes / 1e6:.0f}", str(row.samples))
        table.add_row(row.runtime, row.mode, *cold, *rest)
    return table


def profiles(found: "Mapping[Path, LatencyProfile]", shipped: Path) -> Iterator[RenderableType]:
    """Grouped by machine, then by artifact; those that travel with mbexport are called so."""
    from mbexport.bench import rows_of

    if not found:
        yield "no profiles yet; measure with: mbexport bench ARTIFACT"
    machine = ""
    for path, profile in sorted(found.items(), key=lambda item: (str(item[0].parent), str(item[0]))):
        origin = "shipped with mbexport" if is_shipped(path, shipped) else "measured here"
        if machine != str(path.parent):
            machine = str(path.parent)
            yield Text(f"{profile.hardware.slug} ({profile.hardware.cpu})", style="bold")
            yield f"{origin}: {path.parent}"
        yield ""
        yield Text(profile.artifact, style="cyan")
        yield from latencies(rows_of(profile))


def diagnosis(found: "Diagnosis") -> Iterator[RenderableType]:
    """What doctor found: the machine, the devices, the packages, and then what to do."""
    yield f"mbexport {found.mbexport}, Python {found.python}"
    yield f"{found.hardware.cpu}: {', '.join(found.threads.reasons)}; {found.threads.threads} threads by default"
    yield ""
    devices = _table("device", "usable", "what it is")
    for device in found.devices:
        devices.add_row(device.target, _yes(device.available), device.detail if device.available else "see below")
    yield devices
    for device in found.devices:
        if not device.available:
            yield _note(". ".join(filter(None, [f"{device.target}: {device.detail}", device.remedy])))
    yield ""
    packages = _table("extra", "package", "version")
    for extra in found.extras:
        for package in extra.packages:
            packages.add_row(extra.name, package.name, package.version or Text("not installed", style="yellow"))
    yield packages
    for extra in found.extras:
        if not extra.complete:
            yield _note(f"{extra.name} is not complete: {extra.install}")
    yield ""
    for problem in found.problems:
        yield Text(f"broken: {problem.what}", style="bold red")
        yield f"  mend it with: {problem.remedy}"
    if not found.problems:
        yield Text("nothing is broken", style="green")


def _yes(answer: bool) -> Text:
    return Text("yes", style="green") if answer else Text("no", style="yellow")


def catalogue(entries: "Iterable[Published]") -> Iterator[RenderableType]:
    """The published networks with their published figures, then timm's names for some of them."""
    entries = tuple(entries)
    figures = ("params M", "MACs M", "top-1 %")
    table = _table("model", *figures, right=figures)
    names = _table("model", "timm's name")
    for entry in entries:
        parameters = f"{entry.parameters_millions:.{entry.parameters_decimals}f}"
        table.add_row(entry.name, parameters, str(entry.macs_millions), f"{entry.top1 * 100:.1f}")
        if entry.timm is not None:
            names.add_row(entry.name, entry.timm.name)
    yield table
    yield _note("as published; `mbexport info` says which figures hold")
    yield ""
    yield names


def info(about: "Info") -> Iterator[RenderableType]:
    yield Text(about.spec.slug, style="bold")
    rows = {
        "parameters": about.parameters,
        "trainable": about.trainable_parameters,
        "without batch norm": about.parameters_without_batch_norm,
        "multiply-accumulates": about.macs,
    }
    for name, value in rows.items():
        yield f"  {name:<20} {value:>15,}"
    if about.published is None:
        yield "  no figures are published for this network"
    else:
        yield f"  published: {about.published.parameters_millions} M parameters, {about.published.macs_millions} M MACs"
        yield f"    ({about.published.source})"
    yield from (_note(line) for line in about.disagreements)


def checkpoints(abouts: "Sequence[Info]") -> Iterator[RenderableType]:
    """Computed beside published, and then what does not hold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("checkpoint", no_wrap=True)
    for header in ("params M", "published", "MACs M", "published"):
        table.add_column(header, justify="right", no_wrap=True)
    for about in abouts:
        if about.published is not None:
            bare, published = about.parameters_without_batch_norm / 1e6, about.published
            counts = (f"{bare:.2f}", str(published.parameters_millions), f"{about.macs / 1e6:.1f}")
            table.add_row(about.spec.slug, *counts, str(published.macs_millions))
    yield table
    yield "parameters without batch norm, as the published figures count them"
    yield ""
    for about in abouts:
        yield from (_note(f"{about.spec.slug}: {line}") for line in about.disagreements)


def _table(*headers: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", no_wrap=True)
    return table


def _reasons(rows: Iterable[tuple[str, str, Sequence[str]]]) -> Iterator[RenderableType]:
    for runtime, mode, reasons in rows:
        for reason in reasons:
            yield _note(f"{runtime} {mode}: {reason}")


def _note(text: str) -> Text:
    return Text(text, style="yellow")


def _verdict(word: str) -> Text:
    return Text(word, style=_STYLES[word])


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "insufficient"
    value = seconds * 1e3
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _decibels(value: float | None, *, exact: bool) -> str:
    if value is not None:
        return f"{value:.1f}"
    return "bit-equal" if exact else "not finite"
