"""ModelSpec -> keras.Model with its weights, and its answers in float32 and, the ground truth, in float64."""

from __future__ import annotations

import gc
import importlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np

from mbexport.artifact import RANDOM_NOTE, InputContract, OutputContract, OutputKind, Reference, WeightsOrigin
from mbexport.errors import MissingPackageError
from mbexport.float64 import computing_in_float64
from mbexport.pictures import REFERENCE_PICTURES, calibration_count, pictures
from mbexport.spec import SIDE_MULTIPLE_PX, size_text

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from mbexport.spec import ExportOptions, ModelSpec

REFERENCE_SEED = 2**31
"""Apart from every calibration seed in practice, so that references are not the pictures calibrated on."""


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


def build_model(spec: ModelSpec, weights: str = "random", seed: int = 0) -> BuiltModel:
    """Build the network and give it its weights.

    Args:
        spec: the network.
        weights: ``random``, or the path of a Keras weights file.
        seed: of random weights.

    Raises:
        MissingPackageError: TensorFlow is not installed.
        WeightsError: the weights file does not fit.
    """
    import_keras()
    import tensorflow as tf

    from mbexport.weights import keras_file, random

    with tf.device("CPU:0"):
        model = _construct(spec)
        if weights == "random":
            shown = pictures(calibration_count(*spec.size), *spec.size, seed)
            random.initialise(model, network_input(spec, shown), seed)
            origin = WeightsOrigin(kind="random", seed=seed, note=RANDOM_NOTE)
        else:
            origin = keras_file.load(model, weights)
    return BuiltModel(model, origin)


def reference_of(built: BuiltModel, spec: ModelSpec, names: list[str], input_name: str) -> Reference:
    """Run the network in both precisions on pictures made from a fixed seed, at each reference size. Channels-last.

    A network of dynamic size is run at its other sizes as Keras builds it for that very size, with the same weights:
    that is what its file promises to be. Keras's own network without a size is another one, whose padding would be
    trusted unseen.
    """
    first, *others = spec.reference_sizes
    reference = _reference_at(built, spec.at(*first), names, input_name)
    found = []
    for size in others:
        found.append(_reference_at(_at_size(built, spec.at(*size)), spec.at(*size), names, input_name))
        gc.collect()  # Keras models are cycles: those of one size would stay while the next are built
    return replace(reference, others=tuple(found))


def _at_size(built: BuiltModel, spec: ModelSpec) -> BuiltModel:
    """The same weights in a network for pictures of another size."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        model = _construct(spec)
        model.set_weights(built.model.get_weights())
    return BuiltModel(model, built.origin)


def _reference_at(built: BuiltModel, spec: ModelSpec, names: list[str], input_name: str) -> Reference:
    import tensorflow as tf

    inputs = network_input(spec, pictures(REFERENCE_PICTURES, *spec.size, REFERENCE_SEED))
    with tf.device("CPU:0"):
        single = _outputs(built.model, inputs)
        with computing_in_float64(built.model):
            double = _outputs(built.model, inputs)
    return Reference(
        inputs={input_name: inputs},
        keras_float32=dict(zip(names, single, strict=True)),
        keras_float64=dict(zip(names, double, strict=True)),
    )


def network_input(spec: ModelSpec, shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures as the network expects them: V3 rescales inside and takes 0..255, V2 takes -1..1."""
    mean, scale = _mean_scale(spec)
    return (shown.astype(np.float32) - np.float32(mean)) / np.float32(scale)


def input_contract(spec: ModelSpec, export: ExportOptions, name: str) -> InputContract:
    mean, scale = _mean_scale(spec)
    picture = [spec.height, spec.width]
    if spec.is_dynamic:
        resize, crop = "to any size, bilinear", f"centre, each side to a multiple of {SIDE_MULTIPLE_PX}"
    else:
        resize, crop = f"shorter side to {round(min(spec.size) / 0.875)}, bilinear", f"centre {size_text(spec.size)}"
    return InputContract(
        name=name,
        shape=[export.batch, *picture, 3] if export.layout == "nhwc" else [export.batch, 3, *picture],
        layout=export.layout,
        type="float32",
        range=((0 - mean) / scale, (255 - mean) / scale),
        mean=mean,
        scale=scale,
        resize=resize,
        crop=crop,
        multiple_of=SIDE_MULTIPLE_PX if spec.is_dynamic else msgspec.UNSET,
    )


def output_kind(spec: ModelSpec) -> OutputKind:
    if not spec.include_top:
        return "features"
    return "probabilities" if spec.classifier_activation == "softmax" else "logits"


def output_contracts(spec: ModelSpec, reference: Reference, export: ExportOptions) -> list[OutputContract]:
    """Each output, its sides None where they follow the input's."""
    contracts = []
    for name in reference.keras_float64:
        shapes = [at_size.keras_float64[name].shape[1:] for at_size in reference.each]
        common = [sides[0] if len(set(sides)) == 1 else None for sides in zip(*shapes, strict=True)]
        contracts.append(OutputContract(name=name, shape=[export.batch, *common], kind=output_kind(spec)))
    return contracts


def _mean_scale(spec: ModelSpec) -> tuple[float, float]:
    return (0.0, 1.0) if spec.is_v3 else (127.5, 127.5)


def _construct(spec: ModelSpec) -> keras.Model:
    import keras

    constructors = {
        "v2": keras.applications.MobileNetV2,
        "large": keras.applications.MobileNetV3Large,
        "small": keras.applications.MobileNetV3Small,
    }
    options: dict[str, Any] = {
        "input_shape": (*spec.size, 3),
        "alpha": spec.alpha,
        "include_top": spec.include_top,
        "weights": None,
        "classes": spec.classes,
        "pooling": None if spec.pooling == "none" else spec.pooling,
        "classifier_activation": None if spec.classifier_activation == "none" else spec.classifier_activation,
    }
    if spec.is_v3:
        options["minimalistic"] = spec.minimalistic
        if spec.dropout_rate is not None:
            options["dropout_rate"] = spec.dropout_rate
    return constructors[spec.variant](**options)


def _outputs(model: keras.Model, inputs: NDArray[Any]) -> list[NDArray[Any]]:
    results = model(inputs, training=False)
    return [np.asarray(result) for result in (results if isinstance(results, list | tuple) else [results])]
