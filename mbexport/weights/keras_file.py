"""Keras weights files: ``.weights.h5`` and ``.keras`` of Keras 3 and legacy ``.h5``, checked layer by layer.

Read by h5py alone: of a ``.keras`` or a whole-model ``.h5`` only the numbers are looked at, so nothing in it runs.
Keras's own loader stops at shapes that differ with a message about variables; a user needs the layer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import WeightsError
from mbexport.manifest import WeightsOrigin
from mbexport.thresholds import ARCHIVE_MAX_RATIO
from mbexport.weights.shapes import TOP_LAYERS, shapes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    import keras
    from numpy.typing import NDArray

    Stored = list[tuple[str, list[h5py.Dataset]]]
    """(layer name in the file, its variables), in the file's order."""

HDF5_SUFFIXES = (".h5", ".hdf5")
ARCHIVE_SUFFIX = ".keras"
MEMBER = "model.weights.h5"
MOST_VARIABLES = 4
"""Batch norm's. What stands in a file as one layer with more of them is a network inside another one."""


def check_path(weights: str) -> Path:
    """The path, where it can be a weights file at all; cheap, before anything heavy is imported.

    Raises:
        WeightsError: missing, not a file, empty, or of a kind that is not read.
    """
    path = Path(weights)
    if not weights or not path.exists():
        raise WeightsError(
            f"weights file {weights!r} does not exist; give 'random' or the path of a Keras weights file"
        )
    if not path.is_file():
        raise WeightsError(f"weights file {path} is not a file")
    if path.stat().st_size == 0:
        raise WeightsError(f"weights file {path} is empty")
    if path.suffix not in (*HDF5_SUFFIXES, ARCHIVE_SUFFIX):
        raise WeightsError(f"weights file {path} must be a Keras .weights.h5, .h5 or .keras file")
    if path.suffix == ARCHIVE_SUFFIX:
        _check_archive(path)
    return path


def load(model: keras.Model, weights: str) -> WeightsOrigin:
    """Set every weight of ``model`` from the file.

    Raises:
        WeightsError: missing, damaged, of another architecture or class count (names the layer and both shapes).
    """
    path = check_path(weights)
    return WeightsOrigin(kind="keras-file", file=path.name, sha256=set_weights(model, path))


def set_weights(model: keras.Model, path: Path) -> str:
    """Set every weight of ``model`` from the file, or none of them; the file's sha256.

    Raises:
        WeightsError: damaged, of another architecture or class count (names the layer and both shapes).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error
    layers = [layer for layer in model.layers if layer.weights]
    hdf5 = data
    if path.suffix == ARCHIVE_SUFFIX:
        with _archive(path) as archive:
            hdf5 = archive.read(MEMBER)
    for layer, arrays in zip(layers, _read(path, hdf5, model, layers), strict=True):
        layer.set_weights(arrays)
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A ``.keras`` file, which is a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"weights file {path} is not a whole .keras archive ({error}); save it again with model.save()"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse what Keras 3 did not write, and a member that would unpack to something huge."""
    with _archive(path) as archive:
        for name in ("config.json", MEMBER):
            if name not in archive.namelist():
                raise WeightsError(
                    f"weights file {path} is a zip archive without {name}, so it is no .keras file of Keras 3"
                )
        size, packed = archive.getinfo(MEMBER).file_size, path.stat().st_size
        if size > ARCHIVE_MAX_RATIO * packed:
            raise WeightsError(f"weights file {path} says that its {packed:,} bytes hold {size:,}: no weights do that")


def _read(path: Path, hdf5: bytes, model: keras.Model, layers: list[keras.Layer]) -> list[list[NDArray[Any]]]:
    """Each layer's arrays. Shapes are compared before anything is read: a file may claim to hold any size."""
    import h5py

    try:
        with h5py.File(io.BytesIO(hdf5), "r") as file:
            stored = _stored(file, model)
            if stored is None:
                raise WeightsError(f"weights file {path} holds no Keras layers; save it with model.save_weights()")
            _check(path, layers, stored, is_whole=path.suffix == ARCHIVE_SUFFIX or "model_weights" in file)
            return [[_array(path, name, dataset) for dataset in datasets] for name, datasets in stored]
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"weights file {path} is damaged or truncated ({error})") from error


def _array(path: Path, layer: str, dataset: h5py.Dataset) -> NDArray[Any]:
    if dataset.external or dataset.is_virtual:
        raise WeightsError(f"weights file {path}: layer {layer} refers to another file")
    array = np.asarray(dataset)
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise WeightsError(f"weights file {path}: layer {layer} holds numbers that are not finite")
    return array


def _stored(file: h5py.File, model: keras.Model) -> Stored | None:
    """The file's layers that have variables; None where it holds no layers."""
    if "layers" in file:
        return list(_keras3(file["layers"], model))
    root = file.get("model_weights", file)
    return list(_legacy(root)) if "layer_names" in root.attrs else None


def _keras3(groups: h5py.Group, model: keras.Model) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Networks inside the network, then layers in the model's order as far as they go, then what is left over.

    Keras names groups by class and count (``conv2d_3``) in the order of ``model.layers``, and newer releases note the
    layer's own name beside them.
    """
    from keras.src.utils.naming import to_snake_case

    for key in groups:
        if "layers" in groups[key]:
            yield key, _datasets(groups[key])
    counts: dict[str, int] = {}
    seen = set()
    for layer in model.layers:
        kind = to_snake_case(type(layer).__name__)
        counts[kind] = counts.get(kind, -1) + 1
        key = f"{kind}_{counts[kind]}" if counts[kind] else kind
        seen.add(key)
        if layer.weights and key in groups:
            yield _variables(groups[key], layer.name)
    for key in groups:
        if key not in seen and len(groups[key].get("vars", ())):
            yield _variables(groups[key], key)


def _datasets(group: h5py.Group) -> list[h5py.Dataset]:
    import h5py

    found: list[h5py.Dataset] = []
    group.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _variables(group: h5py.Group, default: str) -> tuple[str, list[h5py.Dataset]]:
    stored = group.get("vars", {})
    name = str(stored.attrs.get("name", default)) if len(stored) else default
    return name, [stored[str(index)] for index in range(len(stored))]


def _legacy(root: h5py.Group) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    for key in root.attrs["layer_names"]:
        name = key.decode() if isinstance(key, bytes) else str(key)
        datasets = [root[name][weight] for weight in root[name].attrs["weight_names"]]
        if datasets:
            yield name, datasets


def _check(path: Path, layers: list[keras.Layer], stored: Stored, *, is_whole: bool) -> None:
    """Raise on the first layer that differs, with a hint where the difference has a usual cause."""
    convert = f"; to export the network that is in the file: mbexport convert {path}" if is_whole else ""
    for layer, (name, datasets) in zip(layers, stored, strict=False):
        wanted = [tuple(weight.shape) for weight in layer.weights]
        found = [tuple(dataset.shape) for dataset in datasets]
        if len(found) > MOST_VARIABLES:
            raise WeightsError(
                f"weights file {path} does not fit: layer {layer.name} has shapes {shapes_text(wanted)}, "
                f"the file's {name} is a whole network with {len(found)} variables inside another one{convert}"
            )
        if wanted != found:
            raise WeightsError(
                f"weights file {path} does not fit: layer {layer.name} has shapes {shapes_text(wanted)}, "
                f"the file's {name} has {shapes_text(found)}{_hint(layer, found)}{convert}"
            )
    if len(stored) < len(layers):
        missing = layers[len(stored)].name
        raise WeightsError(
            f"weights file {path} does not fit: it ends before layer {missing}{_top_hint(missing)}{convert}"
        )
    if len(stored) > len(layers):
        extra = stored[len(layers)][0]
        raise WeightsError(
            f"weights file {path} does not fit: it holds layer {extra}, which this network does not have; "
            f"check --variant, --minimalistic and --include-top{convert}"
        )


def _hint(layer: keras.Layer, found: list[tuple[int, ...]]) -> str:
    if layer.name in {"logits", "predictions"} and found and found[0][:-1] == tuple(layer.weights[0].shape)[:-1]:
        return f"; for this file add --classes {found[0][-1]}"
    return "; check --variant, --alpha and --minimalistic"


def _top_hint(layer: str) -> str:
    return "; a file without the top needs --no-include-top" if layer in TOP_LAYERS else ""
