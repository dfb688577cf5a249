"""``README.md`` of a machine's folder: one table over all its profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import thresholds
from mbexport.bench.rows import row_of
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mbexport.profile import Hardware, LatencyProfile, Measurement

_COLUMNS = (
    *("network", "runtime", "mode", "precision", "threads", "batch", "p50 ms (95% interval)", "p90 ms", "p99 ms"),
    *("load ms", "first inference ms", "verdict"),
)
_METHOD = (
    f"Each row: {thresholds.BENCH_LEAST_REPLICATES} or more fresh processes, warmed up, in turns with the other rows';",
    'percentiles over all raw samples, "-" where they are too few; 95% intervals from drawing processes again. Load',
    "and first inference: the median process. One call after the other, where no other scenario is named.",
)
_NUMBERS = _COLUMNS[4:-1]


def table_text(profiles: Mapping[Path, LatencyProfile]) -> str:
    """The whole file. Times in milliseconds; the network's name links to the raw samples.

    Args:
        profiles: at least one, by path, all of one machine.
    """
    hardware = next(iter(profiles.values())).hardware
    measured = [row for profile in profiles.values() for row in profile.measurements]
    dates = sorted({row.measured_on for row in measured})
    span = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else ""
    lines = [
        f"# {hardware.slug}",
        "",
        f"{_machine(hardware)}. " + (f"Measured {span} with {_versions(measured)}." if dates else "No rows yet."),
        "",
        *_METHOD,
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "|".join("---:" if column in _NUMBERS else "---" for column in _COLUMNS) + "|",
    ]
    for path, profile in sorted(profiles.items()):
        lines += [_line(path, profile, row) for row in sorted(profile.measurements, key=lambda row: row.key)]
    return "\n".join(lines) + "\n"


def _machine(hardware: Hardware) -> str:
    cores = f"{hardware.physical_cores} cores, {hardware.logical_cores} threads"
    parts = [hardware.cpu, hardware.architecture, cores, f"{hardware.memory_bytes / 2**30:.0f} GiB"]
    virtual = ["virtual machine"] if hardware.virtual_machine else []
    return ", ".join([*parts, *virtual, *hardware.accelerators, " ".join(hardware.instruction_sets)]).rstrip(", ")


def _versions(measured: Sequence[Measurement]) -> str:
    found = sorted({(name, version) for row in measured for name, version in row.versions.items()})
    return ", ".join(f"{name} {version}" for name, version in found)


def _line(path: Path, profile: LatencyProfile, measurement: Measurement) -> str:
    row = row_of(profile.artifact, measurement)
    low_s, high_s = row.p50_ci_s
    size = "" if row.input_size is None else f" at {size_text(row.input_size)}"
    scenario = "" if row.scenario == "single-stream" else f", {row.scenario}, {row.concurrency} callers"
    unusual = f", {measurement.unusual}" if measurement.unusual else ""
    cells = (
        f"[{profile.artifact}]({path.name}){size}{scenario}{unusual}",
        row.runtime,
        row.mode,
        row.precision,
        str(row.threads),
        str(row.batch),
        f"{_ms(row.p50_s)} ({_ms(low_s)} to {_ms(high_s)})",
        _ms(row.p90_s),
        _ms(row.p99_s),
        _ms(row.load_s),
        _ms(row.first_inference_s),
        row.verdict,
    )
    return "| " + " | ".join(cells) + " |"


def _ms(seconds: float | None) -> str:
    """Milliseconds with three significant digits or more."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
