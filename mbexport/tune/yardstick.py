"""By what accuracy is judged: labelled pictures, unlabelled ones, or numbers on the artifact's own reference inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbexport.artifact import MODEL, read_reference
from mbexport.classifier import classifier_outputs
from mbexport.errors import InputError
from mbexport.images import network_input, picture_size
from mbexport.quantize.shown import FEW_PICTURES
from mbexport.tune.answers import Probe
from mbexport.tune.judging import check_pictures, check_sqnr
from mbexport.tune.pictures import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputContract
    from mbexport.predict import FailedPicture
    from mbexport.profile import AccuracyCheck

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class PictureYardstick:
    """Classes of pictures. The pictures' order is drawn, so that the first ones stand for all."""

    artifact: Artifact
    output: OutputContract
    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    max_drop: float
    """As a share of 1."""
    failed: list[FailedPicture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def probe(self, count: int | None = None) -> Probe:
        """The first ``count`` pictures, or all."""
        contract = self.artifact.manifest.input
        return Probe(
            count=len(self.pictures) if count is None else min(count, len(self.pictures)),
            batch=contract.shape[0] or 1,
            size=picture_size(contract),
            feeds=lambda rows: {contract.name: network_input(self.pictures[rows], contract)},
        )

    def check(self, exact: Arrays, narrow: Arrays) -> AccuracyCheck:
        """Judge answers to the first pictures against float32's to as many or more of them."""
        answers = narrow[self.output.name]
        count = len(answers)
        labels = None if self.labels is None else self.labels[:count]
        return check_pictures(self.output, exact[self.output.name][:count], answers, labels, self.max_drop)


@dataclass(frozen=True)
class SqnrYardstick:
    """Numbers: against Keras in float64, and no more than so far under what bf16's rounding costs."""

    artifact: Artifact
    inputs: Arrays
    truth: Arrays
    floors_db: Mapping[str, float]
    """Output -> bf16's own SQNR on these inputs."""
    failed: list[FailedPicture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def probe(self, count: int | None = None) -> Probe:
        """The first ``count`` inputs, or all."""
        contract = self.artifact.manifest.input
        first = next(iter(self.inputs.values()))
        return Probe(
            count=len(first) if count is None else min(count, len(first)),
            batch=contract.shape[0] or 1,
            size=contract.size_of(first),
            feeds=lambda rows: {name: array[rows] for name, array in self.inputs.items()},
        )

    def check(self, exact: Arrays, narrow: Arrays) -> AccuracyCheck:  # noqa: ARG002 - as of pictures
        """Judge answers to the first inputs; the truth is stored, so float32's answers are not needed."""
        count = len(next(iter(narrow.values())))
        truth = {name: array[:count] for name, array in self.truth.items()}
        return check_sqnr(self.artifact.manifest.outputs, truth, narrow, self.floors_db)


def yardstick(
    artifact: Artifact, siblings: Sequence[Artifact], images: Path | None, max_drop: float, threads: int
) -> PictureYardstick | SqnrYardstick:
    """Pictures where they can tell something, else the stored reference.

    Args:
        artifact: in float32.
        siblings: those of narrower precision, whose calibration pictures do not judge.
        images: labelled pictures (a folder a class, or a CSV), or a folder of unlabelled ones.
        max_drop: the limit, as a share of 1.
        threads: that decode pictures.

    Raises:
        InputError: no such folder, no picture in it can be read, or its labels do not fit the network.
        ArtifactError: the stored reference cannot be read.
    """
    if images is None:
        return _sqnr(artifact, ["no --images: judged by SQNR on the artifact's reference inputs, not by top-1"])
    if not images.exists():
        raise InputError(f"{images} does not exist; give a folder with one folder a class, or one of pictures")
    if artifact.manifest.weights.kind == "random":
        return _sqnr(artifact, ["random weights tell no classes apart: judged by SQNR, and --images was not looked at"])
    if all(output.kind == "features" for output in artifact.manifest.outputs):
        return _sqnr(artifact, ["the network does not classify: judged by SQNR, and --images was not looked at"])
    calibrated = {digest for each in siblings for digest in _calibration_of(each)}
    output = classifier_outputs(artifact)[0]
    shown = show(artifact, output, images, threads, calibrated)
    count = len(shown.pixels)
    if count >= FEW_PICTURES:
        return PictureYardstick(artifact, output, shown.pixels, shown.labels, max_drop, shown.failed, shown.notes)
    few = f"{count} pictures are too few to judge by ({FEW_PICTURES} are needed): judged by SQNR on reference inputs"
    return _sqnr(artifact, [*shown.notes, few], shown.failed)


def _calibration_of(artifact: Artifact) -> Sequence[str]:
    """The sha256 of the pictures that it was calibrated on."""
    derivation = artifact.manifest.derivation
    return () if derivation is None else derivation.pictures_sha256


def _sqnr(artifact: Artifact, notes: list[str], failed: list[FailedPicture] | None = None) -> SqnrYardstick:
    import onnx

    from mbexport.accuracy.rounding import precision_floor_db

    stored = read_reference(artifact)
    floors_db = precision_floor_db(onnx.load(artifact.path / MODEL), stored.inputs, artifact.manifest.outputs, "bf16")
    return SqnrYardstick(artifact, stored.inputs, stored.keras_float64, floors_db, failed or [], notes)
