"""The user's pictures, decoded: those that may judge, with what they show where that is known."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mbexport.classifier import ClassNames
from mbexport.errors import PictureError
from mbexport.folders import LabelledPicture, labelled_set, names_classes, some_pictures, take_evenly
from mbexport.images import picture, picture_size
from mbexport.predict import FailedPicture, none_readable
from mbexport.quantize.shown import FEW_PICTURES, LEAST_PICTURES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import InputContract, OutputContract

MOST_PICTURES = 1000
"""They show a drop of top-1 to about 1.5 points where 5% of the classes change; more would take longer than timing."""
_MOST_BYTES = 512 * 2**20
_UNKNOWN = -1


class Shown(NamedTuple):
    """Pictures in a drawn order that is always the same, so that the first ones stand for all."""

    pixels: NDArray[np.uint8]
    """(pictures, height, width, channels)."""
    labels: NDArray[np.int64] | None
    """The class of each; None where that is not known."""
    failed: list[FailedPicture]
    """Those that cannot be read."""
    notes: list[str]


def show(artifact: Artifact, output: OutputContract, images: Path, threads: int, calibrated: Collection[str]) -> Shown:
    """Decode at most :data:`MOST_PICTURES` pictures.

    Where the place is a CSV, or a folder whose folders are named as classes are, they are labelled; of any other folder
    all pictures at any depth are taken, without labels. Pictures whose sha256 is ``calibrated`` do not judge, as long
    as there are enough others.

    Raises:
        InputError: no picture can be read, or the labels do not fit the network.
    """
    chosen, notes = _chosen(artifact, output, images)
    contract = artifact.manifest.input
    height, width = picture_size(contract)
    most = max(FEW_PICTURES, min(MOST_PICTURES, _MOST_BYTES // (3 * height * width)))
    fresh = [each for each in chosen if not calibrated or _digest(each.path) not in calibrated]
    if len(fresh) < len(chosen):
        notes.append(_calibrated_text(len(chosen) - len(fresh), enough=len(fresh) >= LEAST_PICTURES))
    taken = take_evenly(fresh if len(fresh) >= LEAST_PICTURES else chosen, most)
    order = np.random.default_rng(0).permutation(len(taken))
    pixels, labels, failed = _decoded([taken[at] for at in order], contract, threads)
    if not pixels:
        raise none_readable(failed)
    if copies := len(taken) - len(failed) - len(pixels):
        notes.append(f"{copies} pictures show just what others show, and were left out")
    return Shown(np.stack(pixels), None if labels[0] == _UNKNOWN else np.array(labels), failed, notes)


def _decoded(
    pictures: Sequence[LabelledPicture], contract: InputContract, threads: int
) -> tuple[list[NDArray[np.uint8]], list[int], list[FailedPicture]]:
    """Those that can be read, once where several are cropped to the same numbers; their labels; and the others."""

    def decode(each: LabelledPicture) -> NDArray[np.uint8] | PictureError:
        try:
            return picture(each.path, contract)
        except PictureError as error:
            return error

    failed: list[FailedPicture] = []
    different: dict[bytes, tuple[NDArray[np.uint8], int]] = {}
    with ThreadPoolExecutor(threads) as pool:
        for each, found in zip(pictures, pool.map(decode, pictures), strict=True):
            if isinstance(found, PictureError):
                failed.append(FailedPicture(path=str(each.path), reason=found.reason))
            else:
                different.setdefault(hashlib.sha256(found.tobytes()).digest(), (found, each.label))
    shown, labels = [pixels for pixels, _ in different.values()], [label for _, label in different.values()]
    return shown, labels, sorted(failed, key=lambda each: each.path)


def _digest(path: Path) -> str:
    """Of a picture's file; none where it cannot be read, which is told when it is decoded."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _calibrated_text(count: int, *, enough: bool) -> str:
    pictures = f"{count} of the pictures calibrated an artifact that is tried"
    return f"{pictures} and do not judge" if enough else f"{pictures}, which flatters it; there are too few others"


def _chosen(artifact: Artifact, output: OutputContract, images: Path) -> tuple[Sequence[LabelledPicture], list[str]]:
    """The pictures, of class :data:`_UNKNOWN` where nothing says what they show."""
    names = ClassNames(artifact, output)
    if images.is_file() or names_classes(images, names.count, names.labels):
        found = labelled_set(images, names.count, names.labels)
        return found.pictures, [] if found.note is None else [found.note]
    note = (
        f"{images} has no labels: accuracy is agreement with float32, judged by what float32's probabilities expect "
        "of the pictures whose class changed"
    )
    return [LabelledPicture(path, _UNKNOWN) for path in some_pictures(images, MOST_PICTURES)], [note]
