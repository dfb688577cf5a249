"""Validate right artifacts of the whole grid and count the rows that fail: each would be a false alarm.

    python benchmarks/false_alarms.py [--part NAME]... [--seed N]... [--json FILE]

The cells of benchmarks/grid.py, heads of two and of three classes, and networks that resize their pictures or maps;
calibrated random weights of three seeds; both CPU runtimes, parity and production, one and two threads, batches of 8
and 1. Exits 1 where a row fails. What is in the file already is not done again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import grid
from mbexport.build import build_model
from mbexport.pipeline import build, convert
from mbexport.spec import ExportOptions, ModelSpec
from mbexport.validate import Checks, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grid import Cell
    from mbexport.artifact import Artifact

    Make = Callable[[int, Path], Artifact]
    """The artifact of a seed, built in a folder."""

RESIZES = [((48, 80), (72, 72)), ((240, 240), (128, 128)), ((320, 240), (96, 128)), ((480, 640), (224, 224))]
"""Height and width before and behind; one scale or both are no float32 in all but the first."""
UPSAMPLED_PX, CLASSES = 96, 10


def heads() -> Iterator[Cell]:
    """Of few classes, where the most is left to chance."""
    for classes in (2, 3):
        for variant in ("v2", *grid.V3):
            yield ModelSpec(variant=variant, classes=classes), ExportOptions(), 1
        yield ModelSpec(variant="small", minimalistic=True, classes=classes), ExportOptions(), 1


def resizes() -> Iterator[tuple[str, Make]]:
    """Users' networks that resize pictures in front of a backbone, or its maps behind it; bilinear."""
    for variant in ("v2", *grid.V3):
        for before, behind in RESIZES:
            spec = ModelSpec(variant=variant, alpha=0.35, height=behind[0], width=behind[1], include_top=False)
            yield f"{spec.slug} of {before[0]}x{before[1]}", _resizing(spec, before)
        spec = ModelSpec(variant=variant, alpha=0.35, height=UPSAMPLED_PX, width=UPSAMPLED_PX, include_top=False)
        yield f"{spec.slug} upsampled", _resizing(spec, None)


def _resizing(spec: ModelSpec, before: tuple[int, int] | None) -> Make:
    def make(seed: int, folder: Path) -> Artifact:
        import keras
        from keras import layers

        keras.utils.set_random_seed(seed)
        x = shown = keras.Input((*(before or (spec.height, spec.width)), 3))
        if before:
            x = layers.Resizing(spec.height, spec.width)(x)
        x = build_model(spec, seed=seed).model(x)
        if not before:
            x = layers.Conv2D(CLASSES, 3, activation="relu")(layers.UpSampling2D(3, interpolation="bilinear")(x))
        x = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
        keras.Model(shown, x).save(folder / "network.keras")
        return convert(folder / "network.keras", out=folder).artifact

    return make


def _cells(part: Callable[[], Iterator[Cell]]) -> Iterator[tuple[str, Make]]:
    for spec, export, _ in part():
        yield f"{spec.slug} {export.layout}", _building(spec, export)


def _building(spec: ModelSpec, export: ExportOptions) -> Make:
    return lambda seed, folder: build(spec, export=export, seed=seed, out=folder).artifact


PARTS: dict[str, Callable[[], Iterator[tuple[str, Make]]]] = {
    **{name: partial(_cells, part) for name, part in {**grid.PARTS, "heads": heads}.items()},
    "resizes": resizes,
}
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


def rows(cell: str, make: Make, seed: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        artifact = make(seed, Path(folder))
        for threads in THREADS:
            for row in validate(artifact, grid.RUNTIMES, CHECKS, threads=threads).rows:
                yield Row(
                    cell,
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
        for number, (name, make) in enumerate(PARTS[part]()):
            cell = f"{part} {number}: {name}"
            for seed in options.seed or (0, 1, 2):
                if (cell, seed) in done:
                    continue
                found += rows(cell, make, seed)
                if options.json:
                    options.json.write_bytes(msgspec.json.encode(found))
                print(f"{part} {number} seed {seed}", file=sys.stderr, flush=True)
    print("\n".join(page(found)))
    sys.exit(0 if all(row.passed for row in found) else 1)


if __name__ == "__main__":
    main()
