"""The files that start from Keras: mbexport's, Keras's own exports, OpenVINO's and LiteRT's conversions.

Every step builds the same network with the same seeded, calibrated weights, so that all answers can be compared and
no activation is denormal. Each runs in a process of its own, into an empty folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.build import build_model, network_input
from mbexport.compare import centred_log
from mbexport.pictures import pictures
from mbexport.pipeline import build
from mbexport.runtimes.openvino import import_openvino

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from mbexport.artifact import Artifact
    from mbexport.spec import ModelSpec

MODEL = "model.onnx"
FEEDS = "feeds.npz"
WEIGHTS = "weights.npz"
PICTURES = 4
SIDE_PX = 224
SEED = 2**31
"""Apart from the seed of the pictures that the weights were calibrated on."""
_SAVED_MODEL = "saved_model"
_GATE = "squeeze_excite_conv_1"


def mbexport_artifact(spec: ModelSpec, folder: Path) -> Artifact:
    return build(spec, out=folder).artifact


def keras_onnx(spec: ModelSpec, folder: Path, *, zero_bias: bool = False) -> Path:
    """Keras's ONNX file; beside it the pictures with Keras's answers, and the weights in Keras's order.

    With ``zero_bias`` the last squeeze-excite gate's bias is zero, as every bias is in a freshly made network.
    TensorFlow then drops it, the hard sigmoid's scalar Add follows the convolution directly, and tf2onnx's transpose
    optimizer dies on that (``max() arg is an empty sequence``), says so in a log line, and leaves every Transpose in
    the file. One gate is enough for it, and leaves the calibrated network its accuracy.
    """
    model = _keras_model(spec)
    if zero_bias:
        gate = [layer for layer in model.layers if layer.name.endswith(_GATE)][-1]
        kernel, bias = gate.get_weights()
        gate.set_weights([kernel, np.zeros_like(bias)])
    inputs = network_input(spec, pictures(PICTURES, SIDE_PX, SIDE_PX, SEED))
    # Keras exports to ONNX only what was called before.
    answers = np.asarray(model(inputs, training=False))
    np.savez(folder / FEEDS, input=inputs, logits=centred_log(answers))
    arrays: dict[str, Any] = {f"{index:04}": array for index, array in enumerate(model.get_weights())}
    np.savez(folder / WEIGHTS, **arrays)
    path = folder / MODEL
    model.export(str(path), format="onnx", verbose=False)
    return path


def keras_openvino(spec: ModelSpec, folder: Path) -> Path:
    import_openvino()  # first, so that Keras's import of it finds it without its telemetry
    path = folder / "model.xml"
    _keras_model(spec).export(str(path), format="openvino", verbose=False)
    return path


def saved_model_openvino(spec: ModelSpec, folder: Path) -> Path:
    """OpenVINO's own conversion of the SavedModel, kept in float32."""
    openvino = import_openvino()
    source, path = folder / _SAVED_MODEL, folder / "model.xml"
    _keras_model(spec).export(str(source), format="tf_saved_model", verbose=False)
    openvino.save_model(openvino.convert_model(str(source)), str(path), compress_to_fp16=False)
    return path


def tflite(spec: ModelSpec, folder: Path) -> Path:
    import tensorflow as tf

    path = folder / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(_keras_model(spec)).convert())
    return path


def _keras_model(spec: ModelSpec) -> keras.Model:
    return build_model(spec).model
