"""Whole models saved by Keras 2, which Keras 3 cannot load: through tf-keras."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport.build import import_keras
from mbexport.errors import InputError, MissingPackageError
from mbexport.user_model.adapt import adapted, write
from mbexport.user_model.code import lambda_notes, refuse_calls
from mbexport.user_model.functions import network_of
from mbexport.user_model.stored import StoredModel, innermost_reason, unknown_objects
from mbexport.user_model.suitable import TensorSpec, picture_shape

if TYPE_CHECKING:
    from mbexport.user_model.function_network import FunctionNetwork

MODULES = ("keras", "tf_keras", "builtins")


def load(stored: StoredModel, *, allow_unsafe: bool, size: tuple[int, int] | None) -> tuple[FunctionNetwork, list[str]]:
    """The network, and notes on how it was loaded.

    Raises:
        InputError: what the file holds cannot be loaded safely, or at all, or takes no picture.
        ConversionError: the network draws random numbers.
        MissingPackageError: TensorFlow or tf-keras is not installed.
    """
    notes = lambda_notes(stored, allow_unsafe=allow_unsafe)
    if not allow_unsafe:
        _refuse_modules(stored)
        refuse_calls(stored)
    wanted, changes = adapted(stored, size)
    tf_keras = _import_tf_keras(stored)
    import tensorflow as tf

    model = _load(wanted, tf_keras, allow_unsafe=allow_unsafe)
    shape = picture_shape(stored.path, [_tensor(tensor) for tensor in model.inputs or ()], size)
    structure = model.output
    names = sorted(structure) if isinstance(structure, dict) else model.output_names

    def call(pictures: tf.Tensor) -> list[tf.Tensor]:
        inputs = tf.nest.pack_sequence_as(model.input, [pictures])
        results: list[tf.Tensor] = tf.nest.flatten(model(inputs, training=False))
        return results

    network, more = network_of(stored.path, call, shape, names)
    return network, [f"saved by Keras {stored.keras_version}: loaded through tf-keras", *notes, *changes, *more]


def _import_tf_keras(stored: StoredModel) -> Any:
    import_keras()
    try:
        return importlib.import_module("tf_keras")
    except ImportError as error:
        raise MissingPackageError(
            f"{stored.path} was saved by Keras {stored.keras_version}, and reading it needs tf-keras ({error}); "
            "pip install 'mbexport[build]'"
        ) from error


def _refuse_modules(stored: StoredModel) -> None:
    """tf-keras imports whatever module a file names; that would run its code."""
    error = unknown_objects(stored, lambda described: _module(described) in (*MODULES, "None"))
    if error is not None:
        raise error


def _module(described: dict[str, Any]) -> str:
    return str(described.get("module")).partition(".")[0]


def _load(stored: StoredModel, tf_keras: Any, *, allow_unsafe: bool) -> Any:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, tf.device("CPU:0"):
        path = write(stored, Path(folder))
        try:
            return tf_keras.models.load_model(path, compile=False, safe_mode=not allow_unsafe)
        except Exception as error:  # layers raise what they please
            raise unknown_objects(stored, lambda described: _is_known(described, tf_keras)) or InputError(
                f"{stored.path}, saved by Keras {stored.keras_version}, cannot be loaded by tf-keras "
                f"{tf_keras.__version__}: {innermost_reason(error)}"
            ) from error


def _is_known(described: dict[str, Any], tf_keras: Any) -> bool:
    """Whether an object is Keras's own or registered in this process. Only layers are looked up by name alone."""
    name = described.get("registered_name") or described["class_name"]
    if tf_keras.saving.get_registered_object(name) is not None:
        return True
    if described.get("module") is not None:
        return _module(described) in MODULES
    if "inbound_nodes" not in described and "batch_input_shape" not in described["config"]:
        return True
    return hasattr(tf_keras.layers, name) or name in ("Functional", "Model", "Sequential")


def _tensor(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype.name)
