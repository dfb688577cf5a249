"""Keras weights files: ``.weights.h5`` of Keras 3 and legacy ``.h5`` weights, read by h5py, checked layer by layer.

Keras's own loader stops at shapes that differ with a message about variables; a user needs the layer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.artifact import WeightsOrigin
from mbexport.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    import keras
    from numpy.typing import NDArray

    Stored = list[tuple[str, list[NDArray[Any]]]]
    """(layer name in the file, its variables), in the file's order."""

SUFFIXES = (".h5", ".hdf5")


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
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"weights file {path} must be a Keras .weights.h5 or .h5 file")
    return path


def load(model: keras.Model, weights: str) -> WeightsOrigin:
    """Set every weight of ``model`` from the file.

    Raises:
        WeightsError: missing, damaged, of another architecture or class count (names the layer and both shapes).
    """
    path = check_path(weights)
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error
    stored = _read(path, model)
    layers = [layer for layer in model.layers if layer.weights]
    _check(path, layers, stored)
    for layer, (_, arrays) in zip(layers, stored, strict=True):
        layer.set_weights(arrays)
    return WeightsOrigin(kind="keras-file", file=path.name, sha256=sha256)


def _read(path: Path, model: keras.Model) -> Stored:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "layers" in file:
                return list(_keras3(file["layers"], model))
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs:
                return list(_legacy(root))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"weights file {path} is damaged or truncated ({error})") from error
    raise WeightsError(f"weights file {path} holds no Keras layers; save it with model.save_weights()")


def _keras3(groups: h5py.Group, model: keras.Model) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """In the model's order as far as the groups go, then what is left over.

    Keras names groups by class and count (``conv2d_3``) in the order of ``model.layers``, and newer releases note the
    layer's own name beside them.
    """
    from keras.src.utils.naming import to_snake_case

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


def _variables(group: h5py.Group, default: str) -> tuple[str, list[NDArray[Any]]]:
    stored = group.get("vars", {})
    name = str(stored.attrs.get("name", default)) if len(stored) else default
    return name, [np.asarray(stored[str(index)]) for index in range(len(stored))]


def _legacy(root: h5py.Group) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    for key in root.attrs["layer_names"]:
        name = key.decode() if isinstance(key, bytes) else str(key)
        group = root[name]
        arrays = [np.asarray(group[weight]) for weight in group.attrs["weight_names"]]
        if arrays:
            yield name, arrays


def _check(path: Path, layers: list[keras.Layer], stored: Stored) -> None:
    """Raise on the first layer that differs, with a hint where the difference has a usual cause."""
    for layer, (name, arrays) in zip(layers, stored, strict=False):
        wanted = [tuple(weight.shape) for weight in layer.weights]
        found = [array.shape for array in arrays]
        if wanted != found:
            raise WeightsError(
                f"weights file {path} does not fit: layer {layer.name} has shapes {_shapes(wanted)}, "
                f"the file's {name} has {_shapes(found)}{_hint(layer, found)}"
            )
        if not all(np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() for array in arrays):
            raise WeightsError(f"weights file {path}: layer {name} holds numbers that are not finite")
    if len(stored) < len(layers):
        missing = layers[len(stored)].name
        raise WeightsError(
            f"weights file {path} does not fit: it ends before layer {missing}{_top_hint(missing, '--no-include-top')}"
        )
    if len(stored) > len(layers):
        extra = stored[len(layers)][0]
        raise WeightsError(
            f"weights file {path} does not fit: it holds layer {extra}, which this network does not have; "
            "check --variant, --minimalistic and --include-top"
        )


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "none"


def _hint(layer: keras.Layer, found: list[tuple[int, ...]]) -> str:
    if layer.name in {"logits", "predictions"} and found and found[0][:-1] == tuple(layer.weights[0].shape)[:-1]:
        return f"; for this file add --classes {found[0][-1]}"
    return "; check --variant, --alpha and --minimalistic"


def _top_hint(layer: str, option: str) -> str:
    return f"; a file without the top needs {option}" if layer in {"conv_2", "logits", "predictions"} else ""
