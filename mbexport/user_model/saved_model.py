"""SavedModel folders, of whatever made them: one signature is the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport.build import import_keras
from mbexport.convert import first_line
from mbexport.errors import InputError
from mbexport.user_model.effects import refuse_effects
from mbexport.user_model.functions import network_of
from mbexport.user_model.suitable import TensorSpec, picture_shape

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.user_model.function_network import FunctionNetwork

SIGNATURES = ("serving_default", "serve")
"""In order of preference."""


def load(path: Path, *, allow_unsafe: bool, size: tuple[int, int] | None) -> tuple[FunctionNetwork, list[str]]:
    """The network, and notes on how it was loaded.

    Raises:
        InputError: damaged, unsafe, without a signature that is sure to be meant, or one that takes no picture.
        ConversionError: the network draws random numbers.
        MissingPackageError: TensorFlow is not installed.
    """
    import_keras()
    import tensorflow as tf
    from tensorflow.python.saved_model.loader_impl import parse_saved_model  # whichever form the loader will read

    try:
        if not allow_unsafe:
            refuse_effects(path, parse_saved_model(str(path)))
        with tf.device("CPU:0"):
            loaded = tf.saved_model.load(str(path))
    except InputError:
        raise
    except Exception as error:  # TensorFlow raises errors of its own, of protobuf and of the file system
        raise InputError(
            f"SavedModel {path} is damaged, or needs operations that are not here: {first_line(error)}"
        ) from error
    signature = _signature(path, loaded.signatures)
    _, inputs = signature.structured_input_signature
    shape = picture_shape(path, [_spec(name, spec) for name, spec in inputs.items()], size)
    (argument,) = inputs
    names = sorted(signature.structured_outputs)

    def call(pictures: tf.Tensor) -> list[tf.Tensor]:
        results = signature(**{argument: pictures})
        return [results[name] for name in names]

    return network_of(path, call, shape, names)


def _signature(path: Path, signatures: Any) -> Any:
    for name in SIGNATURES:
        if name in signatures:
            return signatures[name]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    found = f"these signatures: {', '.join(sorted(signatures))}" if signatures else "no signature"
    raise InputError(f"SavedModel {path} has {found}; save it with one that is called serving_default")


def _spec(name: str, spec: Any) -> TensorSpec:
    return TensorSpec(name, None if spec.shape.rank is None else tuple(spec.shape), spec.dtype.name)
