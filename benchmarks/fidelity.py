"""Whether the latencies can be trusted: the bars of docs/benchmarking.md.

    python benchmarks/fidelity.py ARTIFACTS [--part agreement|alarms|overhead|catalogue]... [--json FILE] [--rounds N]
                                  [--pairs N] [--threads N]

ARTIFACTS is a folder with the seven networks of CELLS, as ``mbexport build`` makes them. Run it with nothing else
running. Exits 1 where a bar is missed. What is in the ``--json`` file already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from fidelity_bench import agreement, alarms, overhead
from mbexport.artifact import read_artifact
from mbexport.bench import bench

CELLS = (
    *("mobilenet_v3_large_1.0_224", "mobilenet_v3_small_1.0_224", "mobilenet_v3_large_minimalistic_1.0_224"),
    *("mobilenet_v3_small_1.0_96", "mobilenet_v2_1.0_224", "mobilenet_v2_0.35_224", "mobilenet_v2_0.35_96"),
)
CATALOGUE = (
    *("mobilenet_v3_large_1.0_224", "mobilenet_v3_large_0.75_224", "mobilenet_v3_large_minimalistic_1.0_224"),
    *("mobilenet_v3_small_1.0_224", "mobilenet_v3_small_0.75_224", "mobilenet_v3_small_minimalistic_1.0_224"),
)
CATALOGUE_BAR_S = 300.0
PARTS = ("overhead", "agreement", "catalogue", "alarms")
_PAUSE_S = 1.5
"""A process of the agreement measures for so long."""


class Found(msgspec.Struct):
    """What was measured so far."""

    agreement: list[agreement.Agreement] = []
    runs: list[alarms.Run] = []
    overhead_s: float | None = None
    catalogue_s: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--json", type=Path, help="keep what was measured in this file")
    parser.add_argument("--rounds", type=int, default=9, help="of the agreement")
    parser.add_argument("--pairs", type=int, default=100, help="of runs that are compared")
    parser.add_argument("--threads", type=int, default=1, help="of the runs that are compared")
    options = parser.parse_args()
    kept = options.json is not None and options.json.exists()
    found = msgspec.json.decode(options.json.read_bytes(), type=Found) if kept else Found()
    for part in options.part or PARTS:
        _measure(part, found, options)
    print("\n".join(_page(found)))
    sys.exit(0 if _met(found) else 1)


def _measure(part: str, found: Found, options: argparse.Namespace) -> None:
    def keep() -> None:
        if options.json:
            options.json.write_bytes(msgspec.json.encode(found))

    if part == "overhead":
        found.overhead_s = overhead.overhead_s()
    elif part == "catalogue":
        found.catalogue_s = _catalogue_s(options.artifacts)
    elif part == "agreement":
        known = {(one.cell, one.engine) for one in found.agreement}
        for name in CELLS:
            for engine in agreement.ENGINES:
                if (name, engine) not in known:
                    artifact = read_artifact(options.artifacts / name)
                    found.agreement.append(agreement.measure(artifact, engine, options.rounds, _PAUSE_S))
                    keep()
    else:
        artifact = read_artifact(options.artifacts / "mobilenet_v3_small_1.0_224")
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
            while len(found.runs) <= options.pairs:
                found.runs.append(alarms.measure(artifact, options.threads, Path(folder)))
                keep()
    keep()


def _catalogue_s(artifacts: Path) -> float:
    """Both CPU runtimes and modes, default settings, from nothing to written profiles."""
    opened = [read_artifact(artifacts / name) for name in CATALOGUE]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        report = bench(opened, ["ort:cpu", "openvino:cpu"], profiles=Path(folder))
    assert not report.failed, report.failed
    return time.monotonic() - start


def _page(found: Found) -> list[str]:
    lines = []
    if found.overhead_s is not None:
        lines += [f"The harness adds {found.overhead_s * 1e6:.1f} us a call (bar: 20 us).", ""]
    if found.agreement:
        lines += [*agreement.page(found.agreement), ""]
    if found.catalogue_s is not None:
        lines += [f"The six V3 networks, both engines and modes: {found.catalogue_s:.0f} s (bar: 300 s).", ""]
    if len(found.runs) > 1:
        lines += [*alarms.page(found.runs), ""]
    return lines


def _met(found: Found) -> bool:
    return (
        (found.overhead_s is None or found.overhead_s <= overhead.BAR_S)
        and agreement.met(found.agreement)
        and (found.catalogue_s is None or found.catalogue_s <= CATALOGUE_BAR_S)
        and (len(found.runs) < 2 or alarms.met(found.runs))
    )


if __name__ == "__main__":
    main()
