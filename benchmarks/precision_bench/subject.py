"""A float32 network with the photographs that calibrate and judge its 8-bit forms."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from mbexport.artifact import MODEL, read_labels
from mbexport.folders import labelled_set
from mbexport.images import network_input, picture
from mbexport.quantize.engine_runs import answers
from mbexport.quantize.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputContract
    from mbexport.quantities import Mode

BATCH = 8
HALVES = (0, 1)


@dataclass(frozen=True)
class Subject:
    """``shown`` are all photographs, (pictures, ...) as the network takes them; ``labels`` their classes."""

    name: str
    artifact: Artifact
    model: onnx.ModelProto
    shown: NDArray[np.float32]
    labels: NDArray[np.int64]
    most: int
    """Photographs that calibrate."""

    @cached_property
    def network(self) -> Network:
        return Network(self.model)

    @property
    def output(self) -> OutputContract:
        return self.artifact.manifest.outputs[0]

    @cached_property
    def exact(self) -> NDArray[np.float32]:
        """The float32 network's answers to all photographs."""
        return self.answers(self.model, "ort:cpu", self.shown, mode="parity")

    def calibrating(self, half: int) -> list[NDArray[np.float32]]:
        """Batches of every other photograph, beginning with the first or the second."""
        return batches(self.shown[half::2][: self.most])

    def judging(self, half: int) -> slice:
        """The places of the photographs that do not calibrate this half."""
        return slice(1 - half, None, 2)

    def answers(
        self, model: onnx.ModelProto | Path, target: str, shown: NDArray[np.float32], mode: Mode = "production"
    ) -> NDArray[np.float32]:
        """A model's answers on a target, at the engine's default options unless it is the float32 network."""
        if isinstance(model, Path):
            return answers(model, target, mode, self.artifact.manifest.input, batches(shown), self.output.name)
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
            path = Path(folder) / MODEL
            onnx.save(model, path)
            return self.answers(path, target, shown, mode)


def batches(shown: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [shown[at : at + BATCH] for at in range(0, len(shown), BATCH)]


def read_subject(name: str, artifact: Artifact, images: Path, most: int) -> Subject:
    """Decode the labelled photographs of a folder for an artifact."""
    contract, (output, *_) = artifact.manifest.input, artifact.manifest.outputs
    found = labelled_set(images, output.shape[-1] or 0, read_labels(artifact)).pictures
    shown = network_input(np.stack([picture(each.path, contract) for each in found]), contract)
    labels = np.array([each.label for each in found])
    return Subject(name, artifact, onnx.load(artifact.path / MODEL), shown, labels, most)
