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
import importlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbexport.errors import ConversionError, MissingPackageError
from mbexport.layer_calls import called_on, wrapped_calls
from mbexport.layer_names import INPUT, file_name, layer_labels, output_names
from mbexport.missing_ops import HANDLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import keras
    import numpy as np
    import onnx
    import tensorflow as tf
    from numpy.typing import NDArray

__all__ = ["BATCH", "INPUT", "TracedGraph", "first_line", "import_tf2onnx", "onnx_from_graph", "onnx_from_keras"]

BATCH = "batch"
"""The name of the first dimension of inputs and outputs."""


@dataclass(frozen=True)
class TracedGraph:
    """A network as a TensorFlow graph. Its tensors go by TensorFlow's names, ``Conv1/kernel:0``."""

    graph: tf.Graph
    picture: str
    outputs: Mapping[str, str]
    """Tensor -> its name in the ONNX file, unique."""
    weights: Mapping[str, NDArray[np.float32]]
    """Placeholder -> the array that it stands for."""


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
    import_tf2onnx()
    return onnx_from_graph(_traced(model), opset=opset)


def onnx_from_graph(traced: TracedGraph, *, opset: int) -> onnx.ModelProto:
    """Convert a traced graph, without simplifying anything.

    Raises:
        ConversionError: tf2onnx cannot express an operation; it is named, with the scope, which is the layer.
        MissingPackageError: TensorFlow or tf2onnx is not installed.
    """
    _, tfonnx = import_tf2onnx()
    with traced.graph.as_default(), _refused_operations() as refused:
        try:
            onnx_graph = tfonnx.process_tf_graph(
                traced.graph,
                opset=opset,
                input_names=[traced.picture, *traced.weights],
                output_names=list(traced.outputs),
                custom_op_handlers=HANDLERS,
            )
        except Exception as error:
            # Its handlers raise what they please: AssertionError, IndexError, TypeError and their own.
            raise _conversion_error(refused, first_line(error)) from error
    if refused:
        raise _conversion_error(refused, "")
    return _with_initializers(onnx_graph.make_model("mbexport"), traced)


def _conversion_error(refused: list[tuple[str, str]], reason: str) -> ConversionError:
    """Names the first operation that tf2onnx stumbled over, by its layer."""
    if not refused:
        return ConversionError(f"tf2onnx cannot convert this network: {reason}")
    name, kind = refused[0]
    layer = name.rpartition("/")[0] or name
    return ConversionError(
        f"layer {layer}: tf2onnx cannot convert its operation {kind}{reason and f' ({reason})'}; "
        "rebuild the network without that layer, or write the layer with other operations"
    )


def import_tf2onnx() -> tuple[Any, Any]:
    """TensorFlow, and the module ``tf2onnx.tfonnx``.

    Raises:
        MissingPackageError: either is not installed.
    """
    try:
        return importlib.import_module("tensorflow"), importlib.import_module("tf2onnx.tfonnx")
    except ImportError as error:
        raise MissingPackageError(
            f"converting needs TensorFlow and tf2onnx ({error}); pip install 'mbexport[build]'"
        ) from error


def _traced(model: keras.Model) -> TracedGraph:
    """The model run symbolically, weights as placeholders named by their path.

    Raises:
        ConversionError: a layer can only be run on numbers.
    """
    import keras
    import tensorflow as tf

    arrays = [variable.numpy() for variable in model.weights]
    labels, names = layer_labels(model), output_names(model)
    scopes = wrapped_calls(model, lambda layer, call: _scoped(labels[id(layer)], call))
    graph = tf.__internal__.FuncGraph("network")  # unlike tf.Graph, it takes the constants that layers keep
    with graph.as_default(), _plain_errors():
        pictures = tf.compat.v1.placeholder(tf.float32, (None, *model.inputs[0].shape[1:]), name=INPUT)
        holders = [
            tf.compat.v1.placeholder(tf.float32, variable.shape, name=file_name(variable.path))
            for variable in model.weights
        ]
        with keras.StatelessScope(list(zip(model.weights, holders, strict=True))), scopes:
            results = keras.tree.flatten(called_on(model, pictures))
        outputs = [tf.identity(result, name=f"output/{index}").name for index, result in enumerate(results)]
    weights = {holder.name: array for holder, array in zip(holders, arrays, strict=True)}
    weights |= {holder.name: constant.numpy() for constant, holder in graph.captures}
    return TracedGraph(graph, pictures.name, dict(zip(outputs, names, strict=True)), weights)


def _scoped(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` inside the absolute TensorFlow name scope ``<label>/``."""
    import tensorflow as tf

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with tf.name_scope(f"{label}/"):
                return call(*args, **kwargs)
        except ConversionError:
            raise
        except Exception as error:
            raise ConversionError(
                f"layer {label} cannot be turned into a graph: {first_line(error)}; rebuild the network without it, "
                "or write it with Keras's own operations"
            ) from error

    return run


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Keep Keras from rewriting what its layers raise."""
    import keras

    was_rewriting = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if was_rewriting:
            keras.config.enable_traceback_filtering()


def first_line(error: Exception) -> str:
    """What ``error`` says, in one line; its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _with_initializers(model: onnx.ModelProto, traced: TracedGraph) -> onnx.ModelProto:
    """Turn the weight inputs into initializers, name input and outputs, and forget tf2onnx's shapes.

    tf2onnx names the batch anew for every tensor (``unk__12``), which hides that it is the same everywhere.
    """
    from onnx import numpy_helper

    graph = model.graph
    pictures = [value for value in graph.input if value.name == traced.picture]
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in traced.weights.items() if name in used
    )
    del graph.input[:]
    graph.input.extend(pictures)
    del graph.value_info[:]
    renamed = {traced.picture: INPUT, **traced.outputs}
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
def _refused_operations() -> Iterator[list[tuple[str, str]]]:
    """(name, kind) of each TensorFlow operation that tf2onnx could not convert, as it says in its log and only there.

    Nothing of that log reaches the user.
    """
    refused: list[tuple[str, str]] = []

    def listen(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and isinstance(record.args, tuple) and len(record.args) > 1:
            refused.append((str(record.args[0]), str(record.args[1])))
        return False

    mapper, everything = logging.getLogger("tf2onnx.tfonnx"), logging.getLogger("tf2onnx")
    levels = mapper.level, everything.level
    mapper.addFilter(listen)
    mapper.setLevel(logging.ERROR)
    everything.setLevel(logging.CRITICAL)
    try:
        yield refused
    finally:
        mapper.removeFilter(listen)
        mapper.setLevel(levels[0])
        everything.setLevel(levels[1])
