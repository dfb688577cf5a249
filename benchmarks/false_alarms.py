"""Validate right artifacts of the whole grid and count the rows that fail: each would be a false alarm.

    python benchmarks/false_alarms.py [--part NAME]... [--seed N]... [--json FILE]

The cells of benchmarks/grid.py, and heads of two and of three classes, calibrated random weights of three seeds; both
CPU runtimes, parity and production, one and two threads, batches of 8 and 1. Exits 1 where a row fails. What is in the
file already is not done again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import grid
from mbexport.pipeline import build
from mbexport.spec import ExportOptions, ModelSpec
from mbexport.validate import Checks, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grid import Cell


def heads() -> Iterator[Cell]:
    """Of few classes, where the most is left to chance."""
    for classes in (2, 3):
        for variant in ("v2", *grid.V3):
            yield ModelSpec(variant=variant, classes=classes), ExportOptions(), 1
        yield ModelSpec(variant="small", minimalistic=True, classes=classes), ExportOptions(), 1


PARTS = {**grid.PARTS, "heads": heads}
CHECKS = Checks(batches=(8, 1))
THREADS = (1, 2)


class Row(msgspec.Struct, frozen=True):
    """One row of a report, and by how much it passed."""

    cell: str
    seed: int
    threads: int
    runtime: str
    mode: str
    precision: str | None
    margin_db: float | None
    passed: bool
    reason: str | None


def rows(part: str, number: int, cell: Cell, seed: int) -> Iterator[Row]:
    spec, export, _ = cell
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        artifact = build(spec, export=export, seed=seed, out=Path(folder)).artifact
        for threads in THREADS:
            for row in validate(artifact, grid.RUNTIMES, CHECKS, threads=threads).rows:
                yield Row(
                    f"{part} {number}: {spec.slug} {export.layout}",
                    seed,
                    threads,
                    row.runtime,
                    row.mode,
                    row.precision.effective,
                    row.margin_db,
                    row.passed,
                    row.reason,
                )


def page(found: Sequence[Row]) -> Iterator[str]:
    """Markdown: rows and failures of each runtime and mode, and how close the closest came."""
    yield "| runtime | mode, precision | rows | failed | least margin, dB | median margin, dB |"
    yield "|---|---|---:|---:|---:|---:|"
    kinds = Counter((row.runtime, row.mode, row.precision) for row in found)
    for runtime, mode, precision in sorted(kinds, key=str):
        alike = [row for row in found if (row.runtime, row.mode, row.precision) == (runtime, mode, precision)]
        margins = [row.margin_db for row in alike if row.margin_db is not None]
        failed = sum(not row.passed for row in alike)
        figures = f"{min(margins):.1f} | {statistics.median(margins):.1f}" if margins else "- | -"
        yield f"| {runtime} | {mode}, {precision} | {len(alike)} | {failed} | {figures} |"
    yield ""
    networks = len({(row.cell, row.seed) for row in found})
    yield f"{networks} networks, {len(found)} rows, {sum(not row.passed for row in found)} false alarms."
    for row in found:
        if not row.passed:
            yield f"- {row.cell} seed {row.seed}, {row.runtime} {row.mode}, {row.threads} threads: {row.reason}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--json", type=Path, help="keep the rows in this file")
    options = parser.parse_args()
    kept = options.json is not None and options.json.exists()
    found = msgspec.json.decode(options.json.read_bytes(), type=list[Row]) if kept else []
    done = {(row.cell, row.seed) for row in found}
    for part in options.part or PARTS:
        for number, cell in enumerate(PARTS[part]()):
            for seed in options.seed or (0, 1, 2):
                if (f"{part} {number}: {cell[0].slug} {cell[1].layout}", seed) in done:
                    continue
                found += rows(part, number, cell, seed)
                if options.json:
                    options.json.write_bytes(msgspec.json.encode(found))
                print(f"{part} {number} seed {seed}", file=sys.stderr, flush=True)
    print("\n".join(page(found)))
    sys.exit(0 if all(row.passed for row in found) else 1)


if __name__ == "__main__":
    main()
