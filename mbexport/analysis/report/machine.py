"""What machine, when, how, and with what: the page's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.analysis.report import text
from mbexport.analysis.report.parts import Table
from mbexport.catalog import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mbexport.analysis.report.data import ReportData, Row
    from mbexport.profile import LatencyProfile


_METHOD = """\
Percentiles are of all processes' calls together: nothing is averaged, nothing clipped, and a percentile that too few \
calls support is not given. Intervals are 95% confidence intervals.
Parity means float32 pinned, or the narrower precision of a file that has one, production the engine's own defaults; \
the precision is what the engine says that it computed in, and every engine has the same number of threads.
A row is noisy where the machine was busy or the processes disagree, invalid where its figures mean nothing; the \
reasons stand in the last table. Invalid rows are in no plot."""


def dates(data: ReportData) -> str:
    """The day or days of measuring, ISO, UTC."""
    days = sorted({row.measured.measured_on for row in data.rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def machine(data: ReportData) -> list[tuple[str, str]]:
    """What a latency depends on, in name and value."""
    hardware = data.hardware
    cores = f"{text.count(hardware.physical_cores, 'core')}, {text.count(hardware.logical_cores, 'hardware thread')}"
    virtual = {True: "virtual machine", False: "no virtual machine", None: "not known whether virtual"}
    elsewhere = [row for row in data.rows if not row.series.runtime.endswith(":cpu")]
    none = "none found" if elsewhere else "none found; every row ran on the processor"
    return [
        ("Processor", f"{hardware.cpu}, {hardware.architecture}"),
        ("Cores", f"{cores}, {virtual[hardware.virtual_machine]}"),
        ("Memory", f"{hardware.memory_bytes / 2**30:.0f} GiB"),
        ("Instruction sets", " ".join(hardware.instruction_sets) or "none that matter here"),
        ("Accelerators", ", ".join(hardware.accelerators) or none),
        ("Threads", _each(reason for row in data.rows for reason in row.measured.thread_plan.reasons)),
        ("Measured", dates(data)),
        ("Versions", _each(f"{name} {version}" for row in data.rows for name, version in _versions(row))),
        ("Profiles", data.origin),
    ]


def method(data: ReportData) -> list[str]:
    """How it was measured, in five sentences with the figures of these rows."""
    replicates = [replicate for row in data.rows for replicate in row.measured.replicates]
    processes = _range(len(row.measured.replicates) for row in data.rows)
    warmups = _range(replicate.warmup_runs for replicate in replicates)
    calls = _range(row.figures.samples for row in data.rows)
    warm_up = f"A process first warms up, here with {warmups} calls, which are discarded"
    return [
        f"Each row was measured in {processes} fresh processes, which took turns with those of the other rows.",
        f"{warm_up}; then every call is timed by itself and kept: {calls} for each row.",
        *_METHOD.splitlines(),
    ]


def options_table(rows: Sequence[Row]) -> Table:
    """The engines' settings; where rows differ, all values."""
    values: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in rows:
        for name, value in row.measured.engine_options.items():
            values.setdefault((row.series.runtime, row.series.mode, name), {})[value] = None
    return Table(
        "Options of the engines",
        ("runtime", "mode", "option", "value"),
        [(*key, " or ".join(sorted(found))) for key, found in sorted(values.items())],
    )


def networks_table(profiles: Sequence[LatencyProfile]) -> Table:
    figures = ("million MACs", "million parameters", "top-1 %")
    return Table(
        "Computed and published figures of each network",
        ("network", "file", *figures, "source of top-1", "SHA-256 of model.onnx"),
        [
            (profile.artifact, profile.precision, *_network_cells(profile), profile.artifact_sha256[:12])
            for profile in profiles
        ],
        frozenset(figures),
    )


def _network_cells(profile: LatencyProfile) -> tuple[str, str, str, str]:
    if profile.spec is None:
        return text.MISSING, text.MISSING, text.MISSING, "a network of the reader's own"
    about = describe(profile.spec)
    macs, parameters = f"{about.macs / 1e6:.1f}", f"{about.parameters / 1e6:.2f}"
    if profile.precision != "f32":
        return macs, parameters, text.MISSING, "published top-1 are those of float32 files"
    if about.published is None:
        return macs, parameters, text.MISSING, "none published"
    return macs, parameters, text.percent(about.published.top1), about.published.source


def rows_table(rows: Sequence[Row]) -> Table:
    """Every row, invalid ones too."""
    times = ("p50 ms", "95% interval ms", "p90 ms", "p99 ms")
    figures = (*times, "pictures/s", "load ms", "first inference ms", "memory MB", "calls")
    return Table(
        "Every row of every setting; memory is what the network adds by its first inference",
        ("network", "runtime", "mode", "precision", "setting", *figures, "verdict", "reasons"),
        [_row_cells(row) for row in rows],
        frozenset(figures),
    )


def _row_cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    few = "too few"
    return (
        row.network,
        *row.series,
        row.setting.text,
        text.milliseconds(figures.p50_s),
        text.interval(figures.p50_ci_s),
        text.milliseconds(figures.p90_s, few),
        text.milliseconds(figures.p99_s, few),
        f"{figures.throughput_per_s:.1f}",
        text.milliseconds(figures.load_s),
        text.milliseconds(figures.first_inference_s),
        text.megabytes(figures.memory_bytes),
        str(figures.samples),
        row.measured.verdict,
        "; ".join(row.measured.reasons) or text.MISSING,
    )


def _versions(row: Row) -> list[tuple[str, str]]:
    return sorted(row.measured.versions.items())


def _each(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words))) or "not recorded"


def _range(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"
