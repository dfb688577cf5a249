"""What a user's model file says of itself, read before TensorFlow is imported and before any of its code could run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mbexport.errors import InputError, MissingPackageError
from mbexport.user_model.archive import opened, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Kind = Literal["keras3", "keras2", "saved-model"]

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS = "model.weights.h5"
MEMBERS = (CONFIG, METADATA, WEIGHTS)
"""Of a .keras file: all that a network of pictures needs."""
H5_SUFFIXES = (".h5", ".hdf5")
READABLE = "a .keras file, a whole model's .h5 file or a SavedModel folder"


@dataclass(frozen=True)
class StoredModel:
    """A ``.keras`` or ``.h5`` file: the Keras that wrote it, and the network as that Keras describes it."""

    path: Path
    keras_version: str
    config: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> StoredModel:
        """Read version and description.

        Raises:
            InputError: damaged, or no whole model.
            MissingPackageError: h5py is not installed.
        """
        version, config = _read_h5(path) if path.suffix in H5_SUFFIXES else _read_zip(path)
        try:
            described = json.loads(config)
            number = json.loads(version)["keras_version"] if path.suffix == ".keras" else version
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: its description of the network cannot be read ({error})") from error
        if not isinstance(described, dict) or "config" not in described:
            raise InputError(f"{path} is damaged: it describes no network")
        return cls(path, str(number), described)

    @property
    def major_version(self) -> int:
        """Of the Keras that wrote it; what wrote no version was older than 2.1."""
        head = self.keras_version.partition(".")[0]
        return int(head) if head.isdigit() else 2


def kind_of(path: Path) -> Kind:
    """See :func:`mbexport.user_model.check`."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give {READABLE}")
    if path.is_dir():
        return _kind_of_folder(path)
    if path.name == "saved_model.pb":
        raise InputError(f"{path} is part of a SavedModel; give the folder: {path.parent}")
    if path.suffix not in (".keras", *H5_SUFFIXES):
        raise InputError(f"{path} is none of the files that are read; give {READABLE}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; save the model again")
    return "keras3" if StoredModel.read(path).major_version >= 3 else "keras2"


def sha256_of(path: Path) -> str:
    """Of a file; of a folder, over each file's name in it and digest, sorted by name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    members = {member.relative_to(path).as_posix(): member for member in path.rglob("*") if member.is_file()}
    for name, member in sorted(members.items()):
        whole.update(f"{name}\0{sha256_of(member)}\n".encode())
    return whole.hexdigest()


def objects(config: Any, owner: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(layer, description) of every object in a network's description, outer ones first.

    ``layer`` is the name of the object, or of the nearest one round it that has a name.
    """
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(config.get("class_name"), str):
            name = inner.get("name") if isinstance(inner, dict) else None
            owner = name if isinstance(name, str) else owner
            yield owner, config
        for value in config.values():
            yield from objects(value, owner)
    elif isinstance(config, list):
        for value in config:
            yield from objects(value, owner)


def innermost_reason(error: Exception) -> str:
    """Keras wraps what went wrong in one paragraph for each object round it, the cause last."""
    cause = str(error).rpartition("Exception encountered: ")[2]
    return cause.strip().partition("\n")[0] or type(error).__name__


def unknown_objects(stored: StoredModel, is_known: Callable[[dict[str, Any]], bool]) -> InputError | None:
    """The error that names, as ``Class (layer)``, what the file needs and does not hold; None where all is known."""
    found = [
        f"{described['config'] if described['class_name'] == 'function' else described['class_name']} (layer {layer})"
        for layer, described in objects(stored.config)
        if not is_known(described)
    ]
    if not found:
        return None
    return InputError(
        f"{stored.path} needs Python code that it does not hold: {', '.join(dict.fromkeys(found))}; "
        "where that code is at hand, save the model with model.export(FOLDER) and convert FOLDER"
    )


def _kind_of_folder(path: Path) -> Kind:
    if (path / "saved_model.pb").is_file():
        return "saved-model"
    if (path / "manifest.json").is_file() and (path / "model.onnx").is_file():
        raise InputError(f"{path} is an artifact, already converted; give {READABLE}")
    raise InputError(f"{path} is no SavedModel: it holds no saved_model.pb; give {READABLE}")


def _read_zip(path: Path) -> tuple[bytes, bytes]:
    """``metadata.json`` and ``config.json``."""
    with opened(path) as archive:
        for name in MEMBERS:
            if name not in archive.namelist():
                raise InputError(f"{path} is a zip archive but not a Keras model: it holds no {name}")
        return unpacked(archive, path, METADATA), unpacked(archive, path, CONFIG)


def _read_h5(path: Path) -> tuple[str, bytes]:
    """Keras's version and the description of the network."""
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(f"reading {path} needs h5py ({error}); pip install 'mbexport[build]'") from error
    try:
        with h5py.File(path, "r") as file:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "")
            holds_weights = "layer_names" in file.attrs or "layers" in file or "model_weights" in file
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} is not an HDF5 file, or a truncated one ({error})") from error
    if config is None:
        what = "holds weights alone; use it with: mbexport build --weights FILE" if holds_weights else "holds no model"
        raise InputError(f"{path} {what}, or save the whole model with model.save()")
    text = version.decode() if isinstance(version, bytes) else str(version)
    return text, config if isinstance(config, bytes) else str(config).encode()
