"""A user's own network: a ``.keras`` or ``.h5`` file, or a SavedModel folder, as a Network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.manifest import WeightsOrigin
from mbexport.user_model.stored import Kind, StoredModel, kind_of, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.network import Network

__all__ = ["Kind", "Loaded", "check", "load"]


@dataclass(frozen=True)
class Loaded:
    """A user's network, ready to be exported."""

    network: Network
    origin: WeightsOrigin
    notes: list[str]
    """What the user should know of how it was loaded, a line each."""


def check(path: Path) -> Kind:
    """What the file or folder is; cheap, without TensorFlow.

    Raises:
        InputError: missing, damaged, or of a kind that is not read.
        MissingPackageError: h5py is not installed.
    """
    return kind_of(path)


def load(path: Path, *, allow_unsafe: bool = False, size: tuple[int, int] | None = None) -> Loaded:
    """Load a network with one picture as its input.

    Args:
        path: a ``.keras`` or ``.h5`` file, or a SavedModel folder.
        allow_unsafe: run what else than a network the file may hold: Python code, as in Lambda layers, and operations
            that act on the machine.
        size: height and width in pixels, for a network that leaves them open.

    Raises:
        InputError: the file is damaged or unsafe, or the network is none that can be exported; says what to do.
        ConversionError: a saved graph cannot be read as a network.
        MissingPackageError: TensorFlow, h5py or tf-keras is not installed.
    """
    kind = check(path)
    network: Network
    if kind == "saved-model":
        from mbexport.user_model import saved_model

        network, notes = saved_model.load(path, allow_unsafe=allow_unsafe, size=size)
    elif kind == "keras2":
        from mbexport.user_model import keras2

        network, notes = keras2.load(StoredModel.read(path), allow_unsafe=allow_unsafe, size=size)
    else:
        from mbexport.user_model import keras3

        network, notes = keras3.load(StoredModel.read(path), allow_unsafe=allow_unsafe, size=size)
    origin = WeightsOrigin(
        kind="saved-model" if kind == "saved-model" else "keras-model", file=path.name, sha256=sha256_of(path)
    )
    return Loaded(network, origin, notes)
