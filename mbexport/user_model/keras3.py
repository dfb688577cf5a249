"""Whole models saved by Keras 3, loaded by Keras 3 as float32 networks of a fixed size."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport.build import import_keras
from mbexport.errors import InputError
from mbexport.layer_calls import every_layer
from mbexport.network import KerasNetwork
from mbexport.user_model.adapt import adapted, write
from mbexport.user_model.code import lambda_notes
from mbexport.user_model.stored import (
    H5_SUFFIXES,
    StoredModel,
    innermost_reason,
    objects,
    unknown_objects,
)
from mbexport.user_model.suitable import TensorSpec, check_outputs, picture_shape

if TYPE_CHECKING:
    import keras


def load(stored: StoredModel, *, allow_unsafe: bool, size: tuple[int, int] | None) -> tuple[KerasNetwork, list[str]]:
    """The network, and notes on how it was loaded.

    Raises:
        InputError: what the file holds cannot be loaded safely, or at all, or takes no picture.
        MissingPackageError: TensorFlow or Keras is not installed.
    """
    notes = lambda_notes(stored, allow_unsafe=allow_unsafe)
    wanted, more = adapted(stored, size)
    import_keras()
    if stored.path.suffix in H5_SUFFIXES:
        _name_operations(wanted.config)
    model = _load(wanted, allow_unsafe=allow_unsafe)
    _refuse_names(stored.path, model)
    picture_shape(stored.path, [_tensor(tensor) for tensor in getattr(model, "inputs", None) or ()], size)
    check_outputs(stored.path, [_tensor(tensor) for tensor in model.outputs])
    return KerasNetwork(model), [*notes, *more]


def _load(stored: StoredModel, *, allow_unsafe: bool) -> keras.Model:
    import keras
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, tf.device("CPU:0"):
        path = write(stored, Path(folder))
        try:
            return keras.models.load_model(path, compile=False, safe_mode=not allow_unsafe)
        except Exception as error:
            raise _load_error(stored, error) from error


def _refuse_names(path: Path, model: keras.Model) -> None:
    for layer, _ in every_layer(model):
        if not re.fullmatch(r"[A-Za-z0-9_.\\/>-]+", layer.name):
            raise InputError(
                f"{path}: TensorFlow refuses the name of layer {layer.name!r}; "
                "rename it with ASCII letters, digits and underscores"
            )


def _load_error(stored: StoredModel, error: Exception) -> InputError:
    """Keras raises what its layers raise, each in its own words; a class that is not there is the usual cause."""
    import keras

    return unknown_objects(stored, _is_known) or InputError(
        f"{stored.path}, saved by Keras {stored.keras_version}, cannot be loaded by Keras {keras.__version__}: "
        f"{innermost_reason(error)}"
    )


def _is_known(described: dict[str, Any]) -> bool:
    """Whether an object is Keras's own or registered in this process."""
    import keras

    name = described.get("registered_name") or described["class_name"]
    if described["class_name"].startswith("__") or keras.saving.get_registered_object(name) is not None:
        return True
    if "module" in described:
        return str(described["module"]).partition(".")[0] == "keras"
    return hasattr(keras.layers, name) or hasattr(keras, name) or name == "Functional" or _operation(name) is not None


def _name_operations(config: Any) -> None:
    """Say of each operation that is no layer where it comes from, in place.

    Keras writes ``x + 3.0`` into an .h5 as ``Add``, and on loading takes that for the layer of this name, which wants
    no numbers ("Only input tensors may be passed as positional arguments"). Every MobileNetV3 has such operations.
    """
    for _, described in objects(config):
        inner = described.get("config")
        if "inbound_nodes" in described and isinstance(inner, dict) and "trainable" not in inner:
            found = _operation(described["class_name"])
            if found is not None:
                described |= {"module": found.__module__, "registered_name": described["class_name"]}


def _operation(name: str) -> type | None:
    """The class of Keras's operation of this name, where it is no layer."""
    import importlib

    import keras

    for module in ("numpy", "nn", "core", "math", "image", "linalg"):
        found = getattr(importlib.import_module(f"keras.src.ops.{module}"), name, None)
        if isinstance(found, type) and issubclass(found, keras.Operation):
            return found
    return None


def _tensor(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, tuple(tensor.shape), str(tensor.dtype))
