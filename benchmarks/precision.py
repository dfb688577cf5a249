"""What 8 bits cost and gain: ablation, bars, dithered weights, sensitivity of each block, NNCF, channels, and times.

    python benchmarks/precision.py --data DIR [--json FILE] [--part PART]... [--artifacts DIR] [--calibrating N]
                                   [--network NAME]... [--rounds N] [--docs FILE] [--machine WORD]

DIR holds ``images`` (one folder a class) and ``weights``. Half of the photographs calibrate and the others judge, then
the other way round; a figure is of all of them. What is in the ``--json`` file already is not measured again. Artifacts
that are not in ``--artifacts`` are built there. The part ``nncf`` is left out where NNCF cannot be imported, and needs
nothing to be built where artifacts are there. Run ``channels`` and ``timing`` with nothing else running. Exits 1 where
a bar is missed or was not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from precision_bench import accuracy, channels, nncf_files, sensitivity, timing
from precision_bench.bars import bars
from precision_bench.networks import ALL, REAL, SMALL
from precision_bench.page import has_markers, put_into, sections
from precision_bench.records import Found
from precision_bench.subject import read_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from precision_bench.networks import Net
    from precision_bench.subject import Subject

PARTS: dict[str, tuple[tuple[Net, ...], Callable[[Net, Subject, Found, int], Iterator[None]]]] = {
    "ablation": (REAL, lambda net, subject, found, _: accuracy.ablation(subject, net.forms, found)),
    "bars": (ALL, lambda net, subject, found, _: accuracy.distances(subject, net.forms, found)),
    "dithered": (REAL, lambda net, subject, found, _: accuracy.dithered(subject, net.forms, found)),
    "sensitivity": ((SMALL,), lambda _, subject, found, rounds: sensitivity.measure(subject, found, rounds)),
    "nncf": (nncf_files.NETS, lambda _, subject, found, __: nncf_files.measure(subject, found)),
    "channels": ((SMALL,), lambda _, __, found, rounds: channels.measure(found, rounds)),
    "timing": (ALL, timing.measure),
}


def main() -> None:
    options = _options()
    kept = options.json is not None and options.json.exists()
    found = msgspec.json.decode(options.json.read_bytes(), type=Found) if kept else Found()
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        options.artifacts = options.artifacts or Path(folder)
        for part in options.part or PARTS:
            if part in PARTS:
                _measure(part, found, options)
    written = sections(found)
    print("\n".join(f"## {name}\n\n{text}" for name, text in written.items()))
    if options.docs:
        put_into(options.docs, written, options.machine)
    sys.exit(0 if all(bar.met for bar in bars(found)) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds images/ and weights/")
    parser.add_argument("--json", type=Path, help="keep what was measured in this file")
    parser.add_argument("--part", choices=[*PARTS, "none"], action="append", help="all by default; none: print alone")
    parser.add_argument("--artifacts", type=Path, metavar="DIR", help="keep artifacts, and use those that are there")
    parser.add_argument("--calibrating", type=int, default=256, help="photographs of a half that calibrate at most")
    parser.add_argument("--network", choices=[net.name for net in ALL], action="append")
    parser.add_argument("--rounds", type=int, default=15, help="of the timing")
    parser.add_argument("--docs", type=Path, help="put the tables between the markers of this page")
    parser.add_argument("--machine", metavar="WORD", help="between those of another machine, that bear this word")
    options = parser.parse_args()
    if options.machine and not (options.docs and has_markers(options.docs, options.machine)):
        parser.error(f"--machine needs --docs with markers such as <!-- precision bars {options.machine} -->")
    return options


def _measure(part: str, found: Found, options: argparse.Namespace) -> None:
    started = time.monotonic()
    for _ in _steps(part, found, options):
        now = time.monotonic()
        found.taken_s[part] = found.taken_s.get(part, 0.0) + now - started
        started = now
        if options.json:
            serde.write_atomic(options.json, msgspec.json.encode(found))


def _steps(part: str, found: Found, options: argparse.Namespace) -> Iterator[None]:
    if part == "nncf" and not nncf_files.is_here():
        return
    nets, measure = PARTS[part]
    for net in nets:
        if net.name in (options.network or [net.name]):
            artifact = net.artifact(options.artifacts, options.data)
            subject = read_subject(net.name, artifact, options.data / "images", options.calibrating)
            yield from measure(net, subject, found, options.rounds)


if __name__ == "__main__":
    main()
