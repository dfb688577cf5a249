"""The two narrower precisions that an artifact can have: int8 and f16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx

from mbexport import hardware
from mbexport.artifact import MODEL, read_reference
from mbexport.manifest import Derivation, QuantizedModel
from mbexport.quantize.derive import bf16_sqnr_db, distances_db
from mbexport.quantize.half import half
from mbexport.quantize.islands import Cpu
from mbexport.quantize.make import make, plan_files
from mbexport.quantize.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.quantize.judging import Judging
    from mbexport.quantize.make import File, Made
    from mbexport.quantize.shown import Shown

    Progress = Callable[[str], None]

Narrow = Literal["int8", "f16"]
INT8_METHOD = (
    "channels brought nearer to one magnitude across sums, and channels of 0 added to depthwise products where that is "
    "faster; an offset of pixels made whole; 8-bit weights per output channel, refitted to rounded "
    "inputs and rounded one input at a time; 8-bit activations over ranges of least weighted error, one scale a "
    "channel into depthwise products, drawn together as far as held-out pictures ask for; bias correction; what "
    "stays in float32 fitted too, to numbers that bf16 holds where an engine may compute it in bf16"
)
F16_METHOD = "f16 but for the nodes whose numbers, sums or constants f16 cannot hold"
FULL_LEVELS, REDUCED_LEVELS = 127, 63
_DOT_PRODUCTS = {"avx_vnni", "avx_vnni_int8", "avx512_vnni", "amx_int8"}
_AMX = "amx_bf16"
_BF16 = {"avx512_bf16", _AMX}
_F16_PICTURES = 32
"""Besides the reference's, to look for numbers that f16 cannot hold; a factor of four is left for the rest."""


@dataclass(frozen=True)
class Narrowed:
    """The model files of an artifact to be, and the model to judge on each target."""

    models: Mapping[str, onnx.ModelProto]
    judged: Mapping[str, onnx.ModelProto]
    derivation: Derivation
    notes: list[str]


def make_int8(
    artifact: Artifact, shown: Shown, judging: Judging, targets: Sequence[str], progress: Progress
) -> Narrowed:
    """Calibrate on the pictures that are for it. Raises as :func:`mbexport.quantize.run.quantize` does."""
    network = Network(onnx.load(artifact.path / MODEL))
    machine = hardware.detect()
    cpu = cpu_of(machine.architecture, machine.instruction_sets)
    batches = shown.batches(range(judging.calibrating), judging.batch)
    half_of_them = shown.batches(range(judging.first_judged), judging.batch)
    files = plan_files(network, targets, judging, half_of_them, cpu, progress)
    made = judged = make(network, files, batches, cpu.levels, progress)
    notes = []
    if judging.needs_twin:
        judged = make(network, files, half_of_them, cpu.levels, lambda what: progress(f"{what}, half of the pictures"))
        notes.append(
            f"accuracy is that of a twin, calibrated on {judging.first_judged} of the pictures and judged on the other "
            f"{judging.judged}"
        )
    if cpu.levels == REDUCED_LEVELS:
        notes.append("weights have 7 bits: this CPU has no VNNI, and products of 8-bit ones would saturate")
    derivation = Derivation(
        source_sha256=artifact.sha256,
        method=INT8_METHOD,
        pictures_sha256=shown.sha256[: judging.calibrating],
        weight_levels=cpu.levels,
        models={name: _described(artifact, network, each) for name, each in made.items()},
        bf16_sqnr_db=bf16_sqnr_db(artifact),
    )
    return Narrowed(
        models={name: each.model for name, each in made.items()},
        judged={target: judged[_file_of(files, target).name].model for target in targets},
        derivation=derivation,
        notes=notes,
    )


def make_f16(
    artifact: Artifact, shown: Shown, judging: Judging, targets: Sequence[str], progress: Progress
) -> Narrowed:
    """Look for what f16 cannot hold on a few pictures. Raises as :func:`mbexport.quantize.run.quantize` does."""
    progress("look for what f16 cannot hold")
    count = min(max(_F16_PICTURES // judging.batch, 1) * judging.batch, judging.first_judged)
    name = artifact.manifest.input.name
    pictures = [*shown.batches(range(count), judging.batch), read_reference(artifact).inputs[name]]
    halved = half(onnx.load(artifact.path / MODEL), {name: np.concatenate(pictures)})
    derivation = Derivation(
        source_sha256=artifact.sha256,
        method=F16_METHOD,
        pictures_sha256=shown.sha256[:count],
        models={MODEL: QuantizedModel(islands=halved.islands, sqnr_db=distances_db(artifact, halved.model))},
        bf16_sqnr_db=bf16_sqnr_db(artifact),
    )
    return Narrowed({MODEL: halved.model}, dict.fromkeys(targets, halved.model), derivation, [])


def weight_levels(architecture: str, instruction_sets: Sequence[str]) -> int:
    """The largest 8-bit weight that a CPU multiplies right.

    AVX2 and AVX-512 without VNNI add two products of 8-bit numbers in 16 bits. That saturates, but not with 7-bit
    weights.
    """
    if architecture == "x86_64" and not _DOT_PRODUCTS & set(instruction_sets):
        return REDUCED_LEVELS
    return FULL_LEVELS


def cpu_of(architecture: str, instruction_sets: Sequence[str]) -> Cpu:
    """How a CPU multiplies."""
    found = set(instruction_sets)
    return Cpu(weight_levels(architecture, instruction_sets), bf16=bool(_BF16 & found), amx=_AMX in found)


def _file_of(files: Sequence[File], target: str) -> File:
    return next((file for file in files if target in file.targets), files[0])


def _described(artifact: Artifact, network: Network, made: Made) -> QuantizedModel:
    names = [product.name for product in network.products.values() if product.output not in made.settled.weights]
    ranges = {
        tensor: (float(grid.low.min()), float(grid.high.max())) for tensor, grid in sorted(made.settled.grids.items())
    }
    return QuantizedModel(islands=names, ranges=ranges, sqnr_db=distances_db(artifact, made.model))
