"""By what accuracy is judged: labelled pictures, unlabelled ones, or numbers on the artifact's own reference inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbexport.artifact import MODEL, read_reference
from mbexport.classifier import classifier_outputs
from mbexport.errors import InputError
from mbexport.images import network_input, picture_size
from mbexport.quantize.shown import FEW_PICTURES, LEAST_PICTURES
from mbexport.tune.answers import Probe
from mbexport.tune.exactness import require_same_classes
from mbexport.tune.judging import check_pictures, check_sqnr
from mbexport.tune.pictures import show
from mbexport.tuned import AccuracyCheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputContract
    from mbexport.predict import FailedPicture

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

    @property
    def judges_files(self) -> bool:
        """Whether int8 and f16 files can be judged."""
        return True

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

    def check_float32(self, exact: Arrays, other: Arrays) -> AccuracyCheck:
        """Require float32's classes of another runtime's float32.

        Raises:
            EngineError: they are others.
        """
        answers = other[self.output.name]
        require_same_classes(self.output, exact[self.output.name][: len(answers)], answers)
        return AccuracyCheck(rule="float32", inside=True, pictures=len(answers))


@dataclass(frozen=True)
class SqnrYardstick:
    """Numbers: against Keras in float64, and no more than so far under what bf16's rounding costs."""

    artifact: Artifact
    inputs: Arrays
    truth: Arrays
    floors_db: Mapping[str, float]
    """Output -> bf16's own SQNR on these inputs."""
    judges_files: bool
    """Whether int8 and f16 files can be judged: of trained weights, only by pictures."""
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

    def check_float32(self, exact: Arrays, other: Arrays) -> AccuracyCheck:  # noqa: ARG002 - as of pictures
        """These inputs are those on which float32 was held to its own limit before."""
        return AccuracyCheck(rule="float32", inside=True, pictures=len(next(iter(other.values()))))


def yardstick(
    artifact: Artifact, siblings: Sequence[Artifact], images: Path | None, max_drop: float, threads: int
) -> PictureYardstick | SqnrYardstick:
    """Pictures where they can tell something, else the stored reference.

    As in ``quantize``, trained weights that classify are judged by classes and nothing else: a distance that random
    weights would be allowed can cost trained ones many points. So without pictures only bf16 of the float32 file is
    judged, by its distance.

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
    if images is not None and not images.exists():
        raise InputError(f"{images} does not exist; give a folder with one folder a class, or one of pictures")
    unseen = "" if images is None else ", and --images was not looked at"
    if artifact.manifest.weights.kind == "random":
        return _sqnr(artifact, [f"random weights tell no classes apart: judged by SQNR{unseen}"], judges_files=True)
    if all(output.kind == "features" for output in artifact.manifest.outputs):
        return _sqnr(artifact, [f"the network does not classify: judged by SQNR{unseen}"], judges_files=True)
    if images is None:
        return _sqnr(artifact, [f"no --images: {_unjudged(siblings)}"], judges_files=False)
    output, *others = classifier_outputs(artifact)
    calibrated = {digest for each in siblings for digest in _calibration_of(each)}
    shown = show(artifact, output, images, threads, calibrated)
    count = len(shown.pixels)
    if count < LEAST_PICTURES:
        few = f"too few pictures to judge by ({count}, at least {LEAST_PICTURES} are needed): {_unjudged(siblings)}"
        return _sqnr(artifact, [*shown.notes, few], shown.failed, judges_files=False)
    notes = [*shown.notes, *([f"only {count} pictures judge: what they show is thin"] if count < FEW_PICTURES else [])]
    notes += [f"judged by {output.name} alone, not {other.name}" for other in others]
    return PictureYardstick(artifact, output, shown.pixels, shown.labels, max_drop, shown.failed, notes)


def _unjudged(siblings: Sequence[Artifact]) -> str:
    """What follows where trained weights have no pictures."""
    names = ", ".join(each.path.name for each in siblings)
    left_out = f"; left out: {names}, for which --images DIR is needed" if names else ""
    return f"only bf16 of the float32 file is judged, by SQNR on the reference inputs{left_out}"


def _calibration_of(artifact: Artifact) -> Sequence[str]:
    """The sha256 of the pictures that it was calibrated on."""
    derivation = artifact.manifest.derivation
    return () if derivation is None else derivation.pictures_sha256


def _sqnr(
    artifact: Artifact, notes: list[str], failed: list[FailedPicture] | None = None, *, judges_files: bool
) -> SqnrYardstick:
    import onnx

    from mbexport.accuracy.rounding import precision_floor_db

    stored = read_reference(artifact)
    floors_db = precision_floor_db(onnx.load(artifact.path / MODEL), stored.inputs, artifact.manifest.outputs, "bf16")
    return SqnrYardstick(artifact, stored.inputs, stored.keras_float64, floors_db, judges_files, failed or [], notes)
