"""The model files of an int8 artifact: one for both engines where one serves both, else one for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.artifact import MODEL, OPENVINO_MODEL
from mbexport.quantize.emit import quantized
from mbexport.quantize.islands import Cpu, Trial, choices, choose_islands
from mbexport.quantize.placement import Islands, place, serves_both
from mbexport.quantize.walk import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from mbexport.quantize.judging import Judging
    from mbexport.quantize.network import Network
    from mbexport.quantize.placement import Engine
    from mbexport.quantize.walk import Settled

_FEW = 32
"""Pictures that settle how much stays in float32, and as many again that judge it."""


@dataclass(frozen=True)
class File:
    """One model file to be."""

    name: str
    engine: Engine
    """Whose form it has."""
    targets: tuple[str, ...]
    """Where it runs, of the targets that are here."""
    islands: Islands


@dataclass(frozen=True)
class Made:
    """A model file and the numbers in it."""

    file: File
    model: onnx.ModelProto
    settled: Settled


def files_of(network: Network, targets: Sequence[str]) -> list[tuple[str, Engine, tuple[str, ...]]]:
    """Name, form and targets of each file."""
    if serves_both(network):
        return [(MODEL, "ort", tuple(targets))]
    by_engine = {
        engine: tuple(each for each in targets if each.startswith(f"{engine}:")) for engine in ("ort", "openvino")
    }
    return [(MODEL, "ort", by_engine["ort"]), (OPENVINO_MODEL, "openvino", by_engine["openvino"])]


def plan_files(
    network: Network,
    targets: Sequence[str],
    judging: Judging,
    batches: Sequence[NDArray[np.float32]],
    cpu: Cpu,
    progress: Callable[[str], None],
) -> list[File]:
    """Which files there will be, and how much of each stays in float32.

    Args:
        network: in float32.
        targets: that are here.
        judging: has the float network's answers to the same pictures.
        batches: pictures as the network takes them, the first that calibrate.
        cpu: of this machine.
        progress: called with what is being done.
    """
    few = max(1, min(_FEW // len(batches[0]), len(batches) // 2))
    trial = Trial(
        contract=judging.contract,
        output=judging.output,
        calibrating=batches[:few],
        judging=batches[few : 2 * few] or batches[:few],
        exact=judging.exact[(few if len(batches) > few else 0) * len(batches[0]) :],
        cpu=cpu,
    )
    found = []
    for name, engine, where in files_of(network, targets):
        progress(f"what stays in float32 for {engine}")
        islands = choose_islands(network, engine, where, trial) if where else choices(network, engine, cpu)[0]
        found.append(File(name, engine, where, islands))
    return found


def make(
    network: Network,
    files: Sequence[File],
    batches: Sequence[NDArray[np.float32]],
    levels: int,
    progress: Callable[[str], None],
) -> Mapping[str, Made]:
    """Settle and write each file, by name."""
    made = {}
    for file in files:
        progress(f"calibrate for {file.engine}")
        settled = settle(network, place(network, file.engine, file.islands), batches, levels=levels)
        made[file.name] = Made(file, quantized(settled), settled)
    return made
