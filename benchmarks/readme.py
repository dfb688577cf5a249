"""README's table of measured results, made from the committed profiles; and its transcript of ``mbexport run``.

python benchmarks/readme.py            write the table
python benchmarks/readme.py --check    exit 1 where README and profiles differ
python benchmarks/readme.py --transcript FILE    put the terminal output in FILE into README
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.bench import rows_of
from mbexport.profiles import list_profiles

if TYPE_CHECKING:
    from mbexport.profile import LatencyProfile
    from mbexport.quantities import Mode

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COLUMNS: tuple[tuple[str, Mode], ...] = (
    ("ort:cpu", "parity"),
    ("openvino:cpu", "parity"),
    ("openvino:cpu", "production"),
)


def between(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the two comments of that name replaced."""
    return re.sub(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{content}{m[2]}", text, count=1, flags=re.DOTALL
    )


def measured() -> str:
    parts = []
    profiles = list_profiles([ROOT / "profiles"])
    for folder in sorted({path.parent for path in profiles}):
        ours = {path: one for path, one in profiles.items() if path.parent == folder and one.measurements}
        parts.append(machine_table(list(ours.values())))
    return "\n".join(parts)


def machine_table(profiles: list[LatencyProfile]) -> str:
    hardware = profiles[0].hardware
    first = profiles[0].measurements[0]
    versions = {name: v for profile in profiles for row in profile.measurements for name, v in row.versions.items()}
    engines = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if name != "python")
    machine = f"{hardware.cpu}, {hardware.physical_cores} cores ({hardware.slug})"
    lines = [
        f"{machine}; threads {first.threads}, batch {first.batch}; {first.measured_on}; {engines}.",
        "Effective precision, p50 and p99 in ms; ~ where replicates or machine were too noisy for the verdict ok.",
        "",
        "| network | " + " | ".join(f"{runtime} {mode}" for runtime, mode in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for profile in sorted(profiles, key=lambda profile: profile.artifact):
        rows = {(row.runtime, row.mode): row for row in rows_of(profile) if row.threads == first.threads}
        cells = []
        for column in COLUMNS:
            row = rows.get(column)
            p99 = "-" if row is None or row.p99_s is None else f"{row.p99_s * 1e3:.2f}"
            noisy = "" if row is None or row.verdict == "ok" else " ~"
            cells.append("-" if row is None else f"{row.precision} {row.p50_s * 1e3:.2f}, {p99}{noisy}")
        lines.append(f"| {profile.artifact} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--transcript", type=Path)
    arguments = parser.parse_args()
    before = README.read_text()
    after = between(before, "measured", measured())
    if arguments.check:
        sys.exit(0 if before == after else "README's table is not what the profiles say; run benchmarks/readme.py")
    if arguments.transcript is not None:
        shown = "\n".join(line.rstrip() for line in arguments.transcript.read_text().splitlines()).strip("\n")
        after = between(after, "transcript", f"```console\n{shown}\n```\n")
    README.write_text(after)


if __name__ == "__main__":
    main()
