"""Build and validate the grid of networks on both CPU runtimes and print one row a cell.

    python benchmarks/grid.py [--part NAME] [--keep DIR]

V2 alpha 0.35, 0.5, 0.6, 0.75, 1.0, 1.3, 1.4 at 96, 128, 160, 192, 224; V3 Large and Small 0.75, 1.0, 1.25 and
minimalistic 1.0; 192x256 and 320 for three of them; NCHW and no-top forms. Exits 1 where a cell fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.artifact import read_artifact
from mbexport.pipeline import build
from mbexport.spec import ExportOptions, ModelSpec, Variant
from mbexport.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    Cell = tuple[ModelSpec, ExportOptions, int]
    """(network, form, Transposes that its graph may have)."""

RUNTIMES = ["ort:cpu", "openvino:cpu"]
V3: tuple[Variant, ...] = ("large", "small")


def v2() -> Iterator[Cell]:
    for alpha in (0.35, 0.5, 0.6, 0.75, 1.0, 1.3, 1.4):
        for side in (96, 128, 160, 192, 224):
            yield ModelSpec(variant="v2", alpha=alpha, height=side, width=side), ExportOptions(), 1


def v3() -> Iterator[Cell]:
    for variant in V3:
        for alpha in (0.75, 1.0, 1.25):
            yield ModelSpec(variant=variant, alpha=alpha), ExportOptions(), 1
        yield ModelSpec(variant=variant, minimalistic=True), ExportOptions(), 1


def shapes() -> Iterator[Cell]:
    for variant in ("v2", *V3):
        for height, width in ((192, 256), (320, 320)):
            yield ModelSpec(variant=variant, height=height, width=width), ExportOptions(), 1


def forms() -> Iterator[Cell]:
    nchw = ExportOptions(layout="nchw")
    for variant in ("v2", *V3):
        yield ModelSpec(variant=variant), nchw, 0
        yield ModelSpec(variant=variant, include_top=False), ExportOptions(), 2
        yield ModelSpec(variant=variant, include_top=False), nchw, 0
        yield ModelSpec(variant=variant, include_top=False, pooling="avg"), ExportOptions(), 1


PARTS = {"v2": v2, "v3": v3, "shapes": shapes, "forms": forms}


def run_cell(cell: Cell, out: Path) -> bool:
    spec, export, allowed = cell
    start = time.perf_counter()
    artifact = build(spec, export=export, out=out).artifact
    report = validate(read_artifact(artifact.path), RUNTIMES)
    graph = artifact.manifest.graph
    transposes = graph.ops.get("Transpose", 0)
    passed = report.passed and transposes == allowed and not any(entry.skipped for entry in graph.passes)
    figures = "  ".join(
        f"{row.runtime} {'equal' if row.sqnr_db is None else f'{row.sqnr_db:6.1f}'} dB" for row in report.rows
    )
    print(
        f"{spec.slug:45} {export.layout}  {graph.nodes_before:4} -> {graph.nodes:3} nodes  {transposes} Transposes  "
        f"{figures}  limit {report.rows[0].threshold_db:5.1f} dB  {time.perf_counter() - start:4.1f} s  "
        f"{'passed' if passed else 'FAILED'}",
        flush=True,
    )
    return passed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the artifacts, each cell's in a folder of its own"
    )
    options = parser.parse_args()
    cells = [cell for part in options.part or PARTS for cell in PARTS[part]()]
    with tempfile.TemporaryDirectory() as folder:
        out = options.keep or Path(folder)
        results = [run_cell(cell, out / str(number)) for number, cell in enumerate(cells)]
    print(f"{sum(results)} of {len(results)} cells passed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
