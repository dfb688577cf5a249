"""How far real engines stand from what mbexport predicts of their precision; sets thresholds.PRECISION_MARGINS_DB.

    python benchmarks/precision_limits.py [--part bf16|f16|tf32|int8|classes|faults] [--keep DIR] [--data DIR]

Prints a markdown table for each part: the floor that ``mbexport.accuracy.rounding`` predicts, and how far over or under
it each engine stood, against Keras in float64. bf16 is OpenVINO on a CPU that has it, and f16 ONNX Runtime with an f16
file; what stands for TF32 and for f16 sums is a double in NumPy. int8 is ONNX Runtime's own static quantisation.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from fault_bench.draft import Correct
from fault_bench.effect import effect_of
from fault_bench.library import ALL as FAULTS
from mbexport import thresholds
from mbexport.accuracy.chance import chance_db
from mbexport.accuracy.precisions import ROUNDINGS
from mbexport.accuracy.rounding import precision_floor_db, rounded_by
from mbexport.artifact import Artifact, read_artifact, read_reference
from mbexport.compare import sqnr_db
from mbexport.errors import EngineError
from mbexport.outputs import comparable
from mbexport.pipeline import build
from mbexport.spec import ModelSpec
from precision_bench import engines, few_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from mbexport.accuracy.precisions import Precision

    Arrays = Mapping[str, NDArray[Any]]

DATA = Path(__file__).parents[2] / "shared" / "data"
SPECS = (
    *(
        ModelSpec(variant="v2", alpha=alpha, height=side, width=side)
        for alpha in (0.35, 1.0, 1.4)
        for side in (96, 224)
    ),
    *(ModelSpec(variant="large", alpha=alpha) for alpha in (0.75, 1.0)),
    *(ModelSpec(variant="small", alpha=alpha) for alpha in (0.75, 1.0)),
    *(ModelSpec(variant="large", minimalistic=True), ModelSpec(variant="small", minimalistic=True)),
)
SEEDS = (0, 1, 2)
REAL = (
    (ModelSpec(variant="small"), "mobilenet_v3_small_1.0_224.weights.h5"),
    (ModelSpec(variant="v2"), "mobilenet_v2_1.0_224.weights.h5"),
    (ModelSpec(variant="v2", alpha=0.35, include_top=False), "mobilenet_v2_0.35_224_notop.weights.h5"),
)


@dataclass(frozen=True)
class Cell:
    """One network with its weights, and the reference."""

    label: str
    artifact: Artifact
    model: onnx.ModelProto
    inputs: Arrays
    truth: Arrays

    def sqnr_db(self, answers: Arrays, picture: slice = slice(None)) -> float:
        """Against float64, of the worst output, on some of the reference pictures."""
        outputs = self.artifact.manifest.outputs
        return min(
            sqnr_db(*comparable(output, self.truth[output.name][picture], answers[output.name][picture]))
            for output in outputs
        )

    def floor_db(self, precision: Precision, picture: slice = slice(None)) -> float:
        """What mbexport predicts, of the worst output."""
        shown = {name: array[picture] for name, array in self.inputs.items()}
        return min(precision_floor_db(self.model, shown, self.artifact.manifest.outputs, precision).values())


def cells(folder: Path, data: Path) -> Iterator[Cell]:
    """Every network that there is; those that ``folder`` holds already are not built again."""
    for spec, file in REAL:
        if (data / "weights" / file).is_file():
            yield _cell(folder / "real", spec, weights=str(data / "weights" / file))
        else:
            print(f"no real weights {data / 'weights' / file}: left out", file=sys.stderr)
    for seed in SEEDS:
        for spec in SPECS:
            yield _cell(folder / f"seed{seed}", spec, seed=seed)


def _cell(out: Path, spec: ModelSpec, **options: Any) -> Cell:
    if not (out / spec.slug).is_dir():
        build(spec, out=out, **options)
    artifact = read_artifact(out / spec.slug)
    reference = read_reference(artifact)
    model = onnx.load(artifact.model_path("openvino:cpu"))
    return Cell(f"{spec.slug} {out.name}", artifact, model, reference.inputs, reference.keras_float64)


Figures = dict[str, float]
"""Engine -> its SQNR in dB."""


def bf16(cell: Cell) -> tuple[float, Figures]:
    path, rounding = cell.artifact.model_path("openvino:cpu"), ROUNDINGS["bf16"]
    floor_db = cell.floor_db("bf16")
    found = {
        f"{threads} thread{'s' * (threads > 1)}, batch {batch}": cell.sqnr_db(
            engines.openvino_bf16(cell.artifact, path, threads, batch)
        )
        for threads, batch in ((1, 4), (2, 4), (1, 1))
    }
    answers = engines.openvino_bf16(cell.artifact, path, 1, 1)
    for number in range(len(next(iter(cell.inputs.values())))):
        picture = slice(number, number + 1)
        # Over the same floor as the others, so that a column is read alike: this picture's distance from its own.
        found[f"picture {number + 1} alone"] = (
            floor_db + cell.sqnr_db(answers, picture) - cell.floor_db("bf16", picture)
        )
    factors_alone = rounded_by(cell.model, replace(rounding, stores=False))
    found["were factors alone rounded"] = cell.sqnr_db(engines.plain_ort(factors_alone, cell.inputs))
    return floor_db, found


def f16(cell: Cell) -> tuple[float, Figures]:
    found = {"ONNX Runtime, f16 file": cell.sqnr_db(engines.ort_f16(cell.model, cell.inputs))}
    if "small" in cell.label or "0.35" in cell.label:  # the others take minutes
        found["double: f16 sums"] = cell.sqnr_db(engines.summing_f16(cell.model, cell.inputs))
    return cell.floor_db("f16"), found


def tf32(cell: Cell) -> tuple[float, Figures]:
    found = {"double: cut, not rounded": cell.sqnr_db(engines.truncating_tf32(cell.model, cell.inputs))}
    return cell.floor_db("tf32"), found


def int8(cell: Cell) -> tuple[float, Figures]:
    path = cell.artifact.model_path("ort:cpu")
    return cell.floor_db("int8"), {"ONNX Runtime, static QDQ": cell.sqnr_db(engines.ort_int8(path, cell.inputs))}


PARTS: dict[str, Callable[[Cell], tuple[float, Figures]]] = {"bf16": bf16, "f16": f16, "tf32": tf32, "int8": int8}


def measure(part: str, networks: list[Cell]) -> None:
    """A row a network, and the distribution of each column."""
    columns: dict[str, list[float]] = {}
    for number, cell in enumerate(networks):
        floor_db, found = PARTS[part](cell)
        if number == 0:
            print(f"\n## {part}\n\n| network | floor, dB | {' | '.join(found)} |\n|---|---:|{'---:|' * len(found)}")
        over = {name: db - floor_db for name, db in found.items()}
        for name, distance in over.items():
            columns.setdefault(name, []).append(distance)
        print(
            f"| {cell.label} | {floor_db:.1f} | {' | '.join(f'{value:+.2f}' for value in over.values())} |", flush=True
        )
    for name, distances in columns.items():
        print(
            f"\n{part}, {name}: mean {np.mean(distances):+.2f} dB, standard deviation {np.std(distances):.2f}, "
            f"worst {min(distances):+.2f}, best {max(distances):+.2f}, of {len(distances)}"
        )


def classes(networks: list[Cell]) -> None:
    """What chance does to answers of few numbers."""
    print("\n## classes\n")
    found = []
    for cell in networks:
        (output,) = cell.artifact.manifest.outputs
        if output.kind == "probabilities":
            (inputs,) = cell.inputs.values()
            found.append(few_classes.noises(cell.artifact, cell.model, inputs, cell.truth[output.name]))
    for line in few_classes.table(found):
        print(line, flush=True)


def faults(networks: list[Cell]) -> None:
    """What a bf16 row still catches: faults whose effect is over the limit, and those that hide in the rounding."""
    print(
        "\n## faults in bf16\n\n| fault | network | effect, dB | SQNR, dB | limit, dB | caught |\n"
        "|---|---|---:|---:|---:|---|"
    )
    caught = []
    for cell in networks:
        for fault in FAULTS:
            injected = fault.inject(Correct(cell.model), np.random.default_rng(0)) if _fits(fault.name) else None
            if injected is None:
                continue
            effect_db = effect_of(cell.model, injected.model, cell.inputs).sqnr_db
            sqnr, limit_db = _faulty(cell, injected.model)
            caught.append((effect_db, limit_db, not sqnr >= limit_db))
            print(
                f"| {fault.name} | {cell.label} | {effect_db:.1f} | {sqnr:.1f} | {limit_db:.1f} | "
                f"{'yes' if caught[-1][2] else 'no'} |",
                flush=True,
            )
    for under_db in (3.0, 0.0, -3.0, -6.0, -math.inf):
        inside = [found for effect_db, limit_db, found in caught if effect_db <= limit_db + under_db]
        print(f"\neffect at most limit {under_db:+.0f} dB: {sum(inside)} of {len(inside)} caught")


def _fits(name: str) -> bool:
    """The folded batch norms are not in the file, and these need them."""
    return "epsilon" not in name


def _faulty(cell: Cell, model: onnx.ModelProto) -> tuple[float, float]:
    """SQNR of OpenVINO in bf16 with the faulty file, and the limit that validate would hold it to."""
    (output,) = cell.artifact.manifest.outputs
    margin_db = thresholds.PRECISION_MARGINS_DB["bf16"] + chance_db(output, cell.truth[output.name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        try:
            sqnr = cell.sqnr_db(engines.openvino_bf16(cell.artifact, path, 1, 4))
            limit_db = replace(cell, model=model).floor_db("bf16") - margin_db
        except EngineError:
            return math.nan, math.nan
    return sqnr, max(limit_db, 0.0)  # noise louder than the signal is wrong, however sensitive the wrong graph is


REPORTS: dict[str, Callable[[list[Cell]], None]] = {"classes": classes, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=[*PARTS, *REPORTS], action="append")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the artifacts, and use those that are there")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that holds weights/")
    parser.add_argument("--only", help="networks whose label holds this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        networks = [
            cell for cell in cells(options.keep or Path(folder), options.data) if (options.only or "") in cell.label
        ]
        for part in options.part or [*PARTS, *REPORTS]:
            if part in PARTS:
                measure(part, networks)
            else:
                REPORTS[part](networks)


if __name__ == "__main__":
    main()
