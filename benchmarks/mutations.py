"""Put every kind of single fault into right artifacts and see what ``validate`` makes of them.

    python benchmarks/mutations.py [--seed N]... [--network NAME]... [--data DIR] [--json FILE] [--side PX]

V3 Large, Small, Small minimalistic and V2 with calibrated random weights of three seeds, and V3 Small and V2 with real
weights where ``--data`` has them. What is in the ``--json`` file already is not done again. Exits 1 where the bars are
missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fault_bench.page import met, page
from fault_bench.suite import Cell, Outcome, outcomes
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNTIMES = ["ort:cpu", "openvino:cpu"]
NETWORKS: dict[str, dict[str, Any]] = {
    "V3 Large": {"variant": "large"},
    "V3 Small": {"variant": "small"},
    "V3 Small minimalistic": {"variant": "small", "minimalistic": True},
    "V2": {"variant": "v2"},
}
REAL = {"V3 Small": "mobilenet_v3_small_1.0_224.weights.h5", "V2": "mobilenet_v2_1.0_224.weights.h5"}


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    for name in options.network or NETWORKS:
        spec = ModelSpec(**NETWORKS[name], height=options.side, width=options.side)
        yield from (Cell(name, spec, seed=seed) for seed in options.seed or (0, 1, 2))
        if options.data and name in REAL:
            weights = str(options.data / "weights" / REAL[name])
            yield Cell(f"{name}, real weights", ModelSpec(**NETWORKS[name]), weights)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--data", type=Path, help="folder of real weights")
    parser.add_argument("--side", type=int, default=224, help="height and width of the random networks, in pixels")
    parser.add_argument("--json", type=Path, help="keep the outcomes in this file")
    options = parser.parse_args()
    found = _records(options.json)
    done = {(one.cell, one.seed) for one in found}
    for cell in cells(options):
        if (cell.name, cell.seed) in done:
            continue
        found += outcomes(cell, RUNTIMES)
        if options.json:
            options.json.write_bytes(msgspec.json.encode(found))
        print(f"{cell.name} seed {cell.seed}: done", file=sys.stderr, flush=True)
    print("\n".join(page(found)))
    sys.exit(0 if met(found) else 1)


def _records(file: Path | None) -> list[Outcome]:
    return msgspec.json.decode(file.read_bytes(), type=list[Outcome]) if file and file.exists() else []


if __name__ == "__main__":
    main()
