"""``--golden DIR``: a few of the user's own pictures, which travel in the artifact with the answers expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import InputError
from mbexport.images import is_picture, picture
from mbexport.manifest import GoldenEntry, RankedClass
from mbexport.reference import Golden

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.contract import InputRule
    from mbexport.labels import Label
    from mbexport.manifest import InputContract, OutputContract
    from mbexport.network import Network

MOST = 3
TOP = 5


def pictures_of(folder: Path) -> list[Path]:
    """The first three pictures of the folder by name.

    Raises:
        InputError: no folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(f"--golden {folder} is not a folder; give one with up to {MOST} pictures")
    found = sorted(path for path in folder.iterdir() if is_picture(path))[:MOST]
    if not found:
        raise InputError(f"--golden {folder} holds no pictures; give a folder with up to {MOST} of them")
    return found


def golden_of(paths: Sequence[Path], network: Network, contract: InputContract, rule: InputRule) -> tuple[Golden, ...]:
    """Each picture as decoded and cropped, and the network's answers to it.

    Raises:
        PictureError: a file that is no picture.
    """
    kept = []
    for path in paths:
        shown = picture(path, contract)
        inputs = rule.apply(shown[np.newaxis])
        answers = dict(zip(network.output_names, network.float64(inputs), strict=True))
        kept.append(Golden(shown, _first_maps(answers, contract)))
    return tuple(kept)


def _first_maps(answers: Mapping[str, NDArray[Any]], contract: InputContract) -> dict[str, NDArray[Any]]:
    """Feature maps in the file's layout."""
    if contract.layout == "nhwc":
        return dict(answers)
    return {name: array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for name, array in answers.items()}


def entries(
    golden: Sequence[Golden], outputs: Sequence[OutputContract], labels: Sequence[Label] | None
) -> list[GoldenEntry]:
    """For the manifest: the top 5 expected for each picture, of the first output that classifies."""
    classifier = next((output.name for output in outputs if output.kind != "features"), None)
    found = []
    for kept in golden:
        answer = kept.keras_float64[classifier][0] if classifier is not None else np.zeros(0)
        ranked = np.argsort(-answer, kind="stable")[:TOP]
        top = [RankedClass(index=int(index), name=labels[index].name if labels else None) for index in ranked]
        found.append(GoldenEntry(top5=top))
    return found
