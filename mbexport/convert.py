"""keras.Model -> ONNX, as tf2onnx writes it. The only tf2onnx code, its workarounds included.

The road differs from ``tf2onnx.convert.from_keras`` in three ways:

* tf2onnx's own optimizer is left out. Its transpose optimizer fails on every MobileNetV3 in which a gate of
  squeeze-excite has a bias of exactly zero, as all have that were not trained: ``max() arg is an empty sequence`` (a
  scalar Add), one log line, and 128 Transposes stay. On trained ones it works, but leaves hard swish in four operators
  and the padding apart. The passes of ``mbexport.graph`` do all of it, and skipping it halves the time.
  ``tests/test_convert.py`` tells when tf2onnx has mended it.
* Weights enter the TensorFlow graph as placeholders and the ONNX graph as initializers. TensorFlow and tf2onnx would
  fold constants with kernels whose last bit differs between CPUs; here NumPy folds them later.
* Each layer opens a name scope of its own, so that node names carry the Keras layer names. TensorFlow makes scopes
  unique by a suffix that cannot be told from a layer's own number.
"""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

from mbexport.errors import ConversionError, MissingPackageError
from mbexport.layer_calls import wrapped_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import keras
    import numpy as np
    import onnx
    from numpy.typing import NDArray

INPUT = "input"
BATCH = "batch"
"""The name of the first dimension of inputs and outputs."""


def onnx_from_keras(model: keras.Model, *, opset: int) -> onnx.ModelProto:
    """Convert a built model with one input, in inference mode, without simplifying anything.

    Args:
        model: a Keras model with static height and width, float32.
        opset: ONNX operator set, 13 to 18.

    Returns:
        A model with a dynamic batch, its input named ``input``, its outputs after the Keras model's output layers.

    Raises:
        ConversionError: tf2onnx cannot express an operation of the model.
        MissingPackageError: TensorFlow or tf2onnx is not installed.
    """
    try:
        import tensorflow as tf
        from tf2onnx import tfonnx
    except ImportError as error:
        raise MissingPackageError(
            f"converting needs TensorFlow and tf2onnx ({error}); pip install 'mbexport[build]'"
        ) from error
    weights = {variable.path: variable.numpy() for variable in model.weights}
    outputs = output_names(model)
    graph = tf.Graph()
    with graph.as_default(), _quiet_tf2onnx():
        _trace(model, outputs)
        names = [INPUT, *weights]
        try:
            onnx_graph = tfonnx.process_tf_graph(
                graph,
                opset=opset,
                input_names=[f"{name}:0" for name in names],
                output_names=[f"{name}:0" for name in outputs],
            )
        except (ValueError, RuntimeError, KeyError) as error:
            raise ConversionError(f"tf2onnx cannot convert this model: {error}") from error
    return _with_initializers(onnx_graph.make_model("mbexport"), weights, outputs)


def output_names(model: keras.Model) -> list[str]:
    """One name per output tensor: ``predictions`` for ``.../predictions/...``; unique within the model."""
    labels = layer_labels(model)
    names: list[str] = []
    for tensor in model.outputs:
        layer = labels[id(tensor._keras_history.operation)]  # noqa: SLF001 - Keras's documented history
        names.append(layer if layer not in names else f"{layer}_{len(names)}")
    return names


def layer_labels(model: keras.Model) -> dict[int, str]:
    """id(layer) -> label. Names that Keras numbered by itself are renumbered from the start of the model.

    Keras counts ``activation``, ``activation_1``, ... over the whole process, which would make the names in the file
    depend on what was built before.
    """
    from keras.src.utils.naming import to_snake_case

    counts: dict[str, int] = {}
    labels: dict[int, str] = {}
    for layer in model.layers:
        base = to_snake_case(type(layer).__name__)
        label = layer.name
        if re.fullmatch(rf"{re.escape(base)}(_\d+)?", label):
            counts[base] = counts.get(base, -1) + 1
            label = f"{base}_{counts[base]}" if counts[base] else base
        labels[id(layer)] = re.sub(r"[^\w./-]", "_", label)
    return labels


def _trace(model: keras.Model, outputs: list[str]) -> None:
    """Run the model symbolically in the current TensorFlow graph, weights as placeholders named by their path."""
    import keras
    import tensorflow as tf

    shape = (None, *model.inputs[0].shape[1:])
    pictures = tf.compat.v1.placeholder(tf.float32, shape, name=INPUT)
    holders = [
        (variable, tf.compat.v1.placeholder(tf.float32, variable.shape, name=variable.path))
        for variable in model.weights
    ]
    labels = layer_labels(model)
    scopes = wrapped_calls(model, lambda layer, call: _scoped(labels[id(layer)], call))
    with keras.StatelessScope(holders), scopes:
        results = model(pictures, training=False)
    for name, result in zip(outputs, results if isinstance(results, list | tuple) else [results], strict=True):
        tf.identity(result, name=name)


def _scoped(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` inside the absolute TensorFlow name scope ``<label>/``."""
    import tensorflow as tf

    def run(*args: Any, **kwargs: Any) -> Any:
        with tf.name_scope(f"{label}/"):
            return call(*args, **kwargs)

    return run


def _with_initializers(
    model: onnx.ModelProto, weights: Mapping[str, NDArray[np.float32]], outputs: list[str]
) -> onnx.ModelProto:
    """Turn the weight inputs into initializers, strip ``:0`` from inputs and outputs, and forget tf2onnx's shapes.

    tf2onnx names the batch anew for every tensor (``unk__12``), which hides that it is the same everywhere.
    """
    from onnx import numpy_helper

    graph = model.graph
    pictures = [value for value in graph.input if value.name == f"{INPUT}:0"]
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(array, f"{name}:0") for name, array in weights.items() if f"{name}:0" in used
    )
    del graph.input[:]
    graph.input.extend(pictures)
    del graph.value_info[:]
    renamed = {f"{name}:0": name for name in (INPUT, *outputs)}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    used_domains = {node.domain for node in graph.node}
    unused = [entry for entry in model.opset_import if entry.domain not in used_domains]
    for entry in unused:  # tf2onnx lists ai.onnx.ml always
        model.opset_import.remove(entry)
    return model


@contextlib.contextmanager
def _quiet_tf2onnx() -> Iterator[None]:
    """Hold back tf2onnx's progress lines; its errors arrive as exceptions."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
