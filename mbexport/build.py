"""ModelSpec -> a Keras network with its weights."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mbexport.contract import AS_IT_IS, SYMMETRIC, InputRule
from mbexport.convert import onnx_from_keras
from mbexport.errors import MissingPackageError, SpecError
from mbexport.manifest import RANDOM_NOTE, WeightsOrigin
from mbexport.network import KerasNetwork
from mbexport.pictures import calibration_count, pictures
from mbexport.read_off import rule_of_graph
from mbexport.subject import About, Subject
from mbexport.weights import load

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

    from mbexport.manifest import OutputKind
    from mbexport.spec import ModelSpec

_KINDS: dict[str, OutputKind] = {
    "softmax": "probabilities",
    "none": "logits",
    "linear": "logits",
    "log_softmax": "logits",
}
"""What the classifier's numbers are behind each activation; behind others they are numbers like any."""


@dataclass(frozen=True)
class BuiltModel:
    """A network in float32, and where its weights come from."""

    model: keras.Model
    origin: WeightsOrigin


def import_keras() -> Any:
    """The keras module.

    Raises:
        MissingPackageError: TensorFlow or Keras is not installed, or Keras runs on another backend.
    """
    wanted = os.environ.get("KERAS_BACKEND", "tensorflow")
    if wanted != "tensorflow":
        _refuse_backend(wanted)
    try:
        importlib.import_module("tensorflow")  # before Keras, so that its absence is the one named
        keras = importlib.import_module("keras")
    except ImportError as error:
        raise MissingPackageError(f"building needs TensorFlow ({error}); pip install 'mbexport[build]'") from error
    if keras.backend.backend() != "tensorflow":
        _refuse_backend(keras.backend.backend())
    return keras


def _refuse_backend(backend: str) -> NoReturn:
    raise MissingPackageError(
        f"building needs Keras on the tensorflow backend, not {backend}; "
        "set KERAS_BACKEND=tensorflow before Keras is imported"
    )


def build_model(
    spec: ModelSpec, weights: str = "random", seed: int = 0, input_tensor: keras.KerasTensor | None = None
) -> BuiltModel:
    """Build the network and give it its weights.

    Args:
        spec: the network.
        weights: ``random``, ``imagenet``, ``timm:FILE``, ``slim:PREFIX``, or the path of a Keras file.
        seed: of random weights.
        input_tensor: the Keras tensor to build on; without it, a fresh input.

    Raises:
        MissingPackageError: TensorFlow is not installed.
        WeightsError: the weights file does not fit.
    """
    import_keras()
    import tensorflow as tf

    from mbexport.weights import random

    if input_tensor is not None and (spec.is_dynamic or tuple(input_tensor.shape[1:3]) != spec.size):
        found = "x".join(map(str, input_tensor.shape[1:3]))
        raise SpecError(f"the input tensor is {found} pixels (height x width), the spec says {spec.resolution}")

    with tf.device("CPU:0"):
        model = _construct(spec, input_tensor)
        if weights == "random":
            shown = pictures(calibration_count(*spec.size), *spec.size, seed)
            rule = input_rule(spec) if input_tensor is None else rule_of_graph(onnx_from_keras(model, opset=17))
            random.initialise(model, (rule or SYMMETRIC).apply(shown), seed)
            origin = WeightsOrigin(kind="random", seed=seed, note=RANDOM_NOTE)
        else:
            origin = load(model, spec, weights)
    return BuiltModel(model, origin)


def subject_of(spec: ModelSpec, weights: str, seed: int, input_tensor: keras.KerasTensor | None = None) -> Subject:
    """The network with its weights, and what is known of it."""
    built = build_model(spec, weights, seed, input_tensor)
    about = About(
        slug=spec.slug,
        origin=built.origin,
        sizes=spec.reference_sizes,
        rule=input_rule(spec) if input_tensor is None else None,
        kind=output_kind(spec),
        spec=spec,
    )
    return Subject(about, KerasNetwork(built.model), lambda size: KerasNetwork(at_size(built, spec.at(*size)).model))


def at_size(built: BuiltModel, spec: ModelSpec) -> BuiltModel:
    """The same weights in a network for pictures of the spec's size."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        model = _construct(spec)
        model.set_weights(built.model.get_weights())
    return BuiltModel(model, built.origin)


def input_rule(spec: ModelSpec) -> InputRule:
    """V3 rescales inside and takes 0..255, V2 takes -1..1."""
    return AS_IT_IS if spec.rescales_inside else SYMMETRIC


def network_input(spec: ModelSpec, shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures as the network expects them."""
    return input_rule(spec).apply(shown)


def output_kind(spec: ModelSpec) -> OutputKind:
    if not spec.include_top:
        return "features"
    return _KINDS.get(spec.classifier_activation, "features")


def _construct(spec: ModelSpec, input_tensor: keras.KerasTensor | None = None) -> keras.Model:
    import keras

    constructors = {
        "v2": keras.applications.MobileNetV2,
        "large": keras.applications.MobileNetV3Large,
        "small": keras.applications.MobileNetV3Small,
    }
    options: dict[str, Any] = {
        "input_shape": (*spec.size, 3),
        "input_tensor": input_tensor,
        "alpha": spec.alpha,
        "include_top": spec.include_top,
        "weights": None,
        "classes": spec.classes,
        "pooling": None if spec.pooling == "none" else spec.pooling,
        "classifier_activation": None if spec.classifier_activation == "none" else spec.classifier_activation,
    }
    if spec.is_v3:
        options |= {"minimalistic": spec.minimalistic, "include_preprocessing": spec.include_preprocessing}
        if spec.dropout_rate is not None:
            options["dropout_rate"] = spec.dropout_rate
    return constructors[spec.variant](**options)
