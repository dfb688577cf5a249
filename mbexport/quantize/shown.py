"""The user's pictures: which calibrate, which judge, and what they show where that is known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbexport.artifact import read_labels
from mbexport.classifier import classifier_outputs
from mbexport.errors import InputError, PictureError
from mbexport.folders import count_pictures, labelled_set, names_classes, some_pictures
from mbexport.images import network_input, picture
from mbexport.predict import FailedPicture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import InputContract

LEAST_PICTURES, FEW_PICTURES = 16, 100
"""Fewer calibrate nothing; fewer than the second leave the ranges, and the verdict on accuracy, to chance."""
MOST_CALIBRATING, MOST_PICTURES = 256, 2048
"""More make a network no better, and take memory and time."""
_NEEDED = f"at least {LEAST_PICTURES} are needed to calibrate, better {FEW_PICTURES} to {MOST_CALIBRATING}"


@dataclass(frozen=True)
class Shown:
    """Pictures as decoded and cropped (pictures, height, width, channels), in a mixed order that is always the same."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    """The class of each; None where that is not known."""
    sha256: list[str]
    """Of each picture's file."""
    failed: list[FailedPicture]
    notes: list[str]
    """How folders were matched with classes, where that could be wrong, and what was left out."""
    contract: InputContract

    def batches(self, places: Sequence[int] | NDArray[np.intp], batch: int) -> list[NDArray[np.float32]]:
        """The pictures at these places as the network takes them, ``batch`` at a time."""
        chosen = self.pixels[np.asarray(places)]
        return [network_input(chosen[at : at + batch], self.contract) for at in range(0, len(chosen), batch)]


def show(artifact: Artifact, images: Path, progress: Callable[[str], None]) -> Shown:
    """Decode pictures of a folder, at most :data:`MOST_PICTURES`.

    Where the network classifies and the place is a folder of one folder a class, or a CSV of path and label, they are
    labelled; of any other folder all pictures at any depth are taken, without labels. What is cropped to the same
    numbers is taken once: a copy would judge what it calibrated.

    Raises:
        InputError: no such place, or fewer than :data:`LEAST_PICTURES` different pictures that can be read.
    """
    paths, labels, note = _found(artifact, images)
    order = _order(paths)
    contract = artifact.manifest.input
    different: dict[str, tuple[int, NDArray[np.uint8]]] = {}
    failed = []
    for count, at in enumerate(order):
        progress(f"decode {count} of {len(order)}")
        try:
            pixels = picture(paths[at], contract)
        except PictureError as error:
            failed.append(FailedPicture(path=str(paths[at]), reason=error.reason))
        else:
            different.setdefault(_sha256(pixels.tobytes()), (at, pixels))
    _refuse_few(images, [pixels for _, pixels in different.values()], failed)
    kept = [at for at, _ in different.values()]
    copies = len(order) - len(failed) - len(kept)
    told = f"{copies} pictures show just what others show, and were left out" if copies else None
    return Shown(
        pixels=np.stack([pixels for _, pixels in different.values()]),
        labels=None if labels is None else labels[kept],
        sha256=[_sha256(paths[at].read_bytes()) for at in kept],
        failed=sorted(failed, key=lambda each: each.path),
        notes=[text for text in (note, told) if text],
        contract=contract,
    )


def picture_paths(artifact: Artifact, images: Path) -> list[Path]:
    """The files that :func:`show` decodes, in its order; raises as it does for a place without pictures."""
    paths = _found(artifact, images)[0]
    return [paths[at] for at in _order(paths)]


def refuse_few(images: Path) -> None:
    """What :func:`show` would refuse, as far as it shows without a network and without decoding anything.

    Raises:
        InputError: no such place, or fewer than :data:`LEAST_PICTURES` pictures.
    """
    count = count_pictures(images)
    if count < LEAST_PICTURES:
        raise InputError(f"{images} holds {count} pictures; {_NEEDED}")


def _order(paths: Sequence[Path]) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(len(paths))[:MOST_PICTURES]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse_few(images: Path, pixels: Sequence[NDArray[np.uint8]], failed: Sequence[FailedPicture]) -> None:
    """``pixels`` are of different pictures; those of one shade calibrate nothing."""
    showing = sum(each.min() != each.max() for each in pixels)
    if showing < LEAST_PICTURES:
        broken = f", {len(failed)} cannot be read ({failed[0].path} {failed[0].reason})" if failed else ""
        raise InputError(f"{images} holds {showing} different pictures that show something{broken}; {_NEEDED}")


def _found(artifact: Artifact, images: Path) -> tuple[list[Path], NDArray[np.int64] | None, str | None]:
    """The pictures, what they show, and how that was guessed."""
    if _is_labelled(artifact, images):
        (output, *_) = classifier_outputs(artifact)
        found = labelled_set(images, output.shape[-1] or 0, read_labels(artifact))
        return [each.path for each in found.pictures], np.array([each.label for each in found.pictures]), found.note
    return some_pictures(images, MOST_PICTURES), None, None


def _is_labelled(artifact: Artifact, images: Path) -> bool:
    """Whether pictures are given with what they show: a CSV, or a folder of one folder a class."""
    if (
        all(output.kind == "features" or len(output.shape) != 2 for output in artifact.manifest.outputs)
        or not images.exists()
    ):
        return False
    if images.is_file():
        return True
    (output, *_) = classifier_outputs(artifact)
    return names_classes(images, output.shape[-1] or 0, read_labels(artifact))
