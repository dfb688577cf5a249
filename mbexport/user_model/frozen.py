"""A TensorFlow function as one flat graph, its weights as placeholders, for tf2onnx and for running.

TensorFlow's own freezing makes constants of the variables, which tf2onnx then folds with TensorFlow's kernels, whose
last bit differs between CPUs; and it stops at variables that are written to, as those of random layers are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbexport.convert import TracedGraph
from mbexport.layer_names import file_name
from mbexport.user_model import augmentation, batch_norm
from mbexport.user_model.nodes import Nodes, data_inputs, needed, producer, reconnect, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tensorflow as tf
    from numpy.typing import NDArray

_CALLS = re.compile(r"((Stateful)?PartitionedCall(_\d+)?/)*")
"""What TensorFlow puts before the names of a function's operations, once for each call of a call."""


@dataclass(frozen=True)
class Frozen:
    """A network's graph twice, tensors of one name the same in both."""

    running: tf.Graph
    """As TensorFlow runs it."""
    converting: TracedGraph
    """As the passes of ``mbexport.graph`` know it from Keras 3."""
    notes: list[str]
    """What was changed in both."""


def frozen(function: Any, names: list[str]) -> Frozen:
    """The graph of a ConcreteFunction.

    Args:
        function: from one float32 tensor to a list of tensors.
        names: of these in the ONNX file.

    Raises:
        ConversionError: the network draws random numbers.
    """
    graph_def = _inlined(function)
    nodes: Nodes = {node.name: node for node in graph_def.node}
    picture = function.inputs[0].op.name
    outputs = [short(tensor.name) for tensor in function.outputs]
    operations = _imported(graph_def).get_operations()
    tensors = {short(tensor.name): tensor for operation in operations for tensor in operation.outputs}
    notes = []
    if cut := augmentation.cut(nodes, tensors, picture, outputs):
        notes.append(f"random augmentation, which the file leaves on, was taken out: {', '.join(cut)}")
    captured = {inside.op.name: outside for outside, inside in function.graph.captures}
    nodes = _pruned(nodes, outputs, picture)
    weights = _replace_weights(nodes, captured)
    if _compute_in_float32(nodes):
        notes.append("float16: rebuilt under float32")
    nodes = _pruned(nodes, outputs, picture)
    new_names = _layer_names(nodes, captured)
    nodes = _rename(nodes, new_names)
    tensor_names = [f"{new_names[producer(tensor)]}:{tensor.partition(':')[2] or 0}" for tensor in outputs]
    traced = TracedGraph(
        graph=_imported(_with_nodes(graph_def, batch_norm.spell_out(nodes))),
        picture=f"{new_names[picture]}:0",
        outputs=dict(zip(tensor_names, names, strict=True)),
        weights={f"{new_names[name]}:0": array for name, array in weights.items()},
    )
    return Frozen(_imported(_with_nodes(graph_def, nodes)), traced, notes)


def _with_nodes(graph_def: Any, nodes: Nodes) -> Any:
    del graph_def.node[:]
    graph_def.node.extend(nodes.values())
    return graph_def


def _inlined(function: Any) -> Any:
    """The GraphDef of ``function``, the functions that it calls in place of their calls, nothing else changed."""
    from tensorflow.python.framework import convert_to_constants  # its public form freezes too

    inline = convert_to_constants._run_inline_graph_optimization  # noqa: SLF001
    graph_def = inline(function, lower_control_flow=False, aggressive_inlining=False)
    for node in graph_def.node:
        node.device = ""
        for attribute in [key for key in node.attr if key.startswith("_")]:  # colocation with what may be cut
            del node.attr[attribute]
    return graph_def


def _imported(graph_def: Any) -> tf.Graph:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return graph


def _pruned(nodes: Nodes, outputs: list[str], picture: str) -> Nodes:
    live = needed(nodes, outputs) | {picture}
    return {name: node for name, node in nodes.items() if name in live}


def _replace_weights(nodes: Nodes, captured: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Variables, and float constants that are no scalars, become placeholders, in place. Returns name -> array."""
    import tensorflow as tf

    arrays: dict[str, NDArray[Any]] = {}
    first_reads: dict[str, str] = {}
    for name, node in nodes.items():
        if node.op == "ReadVariableOp":
            source = _source(nodes, name)
            kind = tf.dtypes.as_dtype(node.attr["dtype"].type)
            if source in first_reads:
                _become(node, "Identity", [first_reads[source]], T=kind)
            elif source in captured:
                first_reads[source] = name
                arrays[name] = tf.raw_ops.ReadVariableOp(resource=captured[source], dtype=kind).numpy()
        elif node.op == "Const" and tf.dtypes.as_dtype(node.attr["dtype"].type).is_floating:
            array = tf.make_ndarray(node.attr["value"].tensor)
            if array.ndim:
                arrays[name] = array
        elif name in captured and captured[name].dtype.is_floating:
            arrays[name] = captured[name].numpy()
        elif name in captured and captured[name].dtype != tf.resource:
            _become(node, "Const", [], dtype=captured[name].dtype)
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(captured[name].numpy()))
    for name, array in arrays.items():
        arrays[name] = array.astype("float32")
        _become(nodes[name], "Placeholder", [], dtype=tf.float32)
        nodes[name].attr["shape"].shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    return arrays


def _source(nodes: Nodes, name: str) -> str:
    """The node from which the variable that ``name`` reads has come, through Identities."""
    while inputs := data_inputs(nodes[name]):
        name = producer(inputs[0])
    return name


def _become(node: Any, kind: str, inputs: list[str], **types: tf.DType) -> None:
    """Turn a node into another operation with the same result."""
    node.op = kind
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    for key, value in types.items():
        node.attr[key].type = value.as_datatype_enum


def _compute_in_float32(nodes: Nodes) -> bool:
    """Mixed precision becomes float32: its half types, and the scalars of these; a Cast to the same type is none.

    Returns whether there was any.
    """
    import tensorflow as tf

    found = False
    halves = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}
    for node in nodes.values():
        for attribute in node.attr.values():
            if attribute.type in halves:
                found = True
                attribute.type = tf.float32.as_datatype_enum
            if attribute.tensor.dtype in halves:
                attribute.tensor.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(attribute.tensor).astype("float32")))
        if node.op == "Cast" and node.attr["SrcT"].type == node.attr["DstT"].type == tf.float32.as_datatype_enum:
            _become(node, "Identity", data_inputs(node), T=tf.float32)
    return found


def _layer_names(nodes: Nodes, captured: Mapping[str, Any]) -> dict[str, str]:
    """Node -> a name that starts with its layer's, unique: without calls, and without what all of them start with."""
    numbers = {name: f"constant_{number}" for number, name in enumerate(captured)}
    plain = {name: numbers.get(name) or _CALLS.sub("", name) for name in nodes}
    computing = [name for old, name in plain.items() if "/" in name and nodes[old].op not in _SILENT]
    heads = {name.partition("/")[0] for name in computing}
    head = f"{heads.pop()}/" if len(heads) == 1 else ""
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for old, name in plain.items():
        wanted = file_name(name.removeprefix(head))
        while taken[wanted]:
            taken[wanted] += 1
            wanted = f"{wanted}_{taken[wanted]}"
        taken[wanted] += 1
        names[old] = wanted
    return names


_SILENT = ("Const", "Placeholder", "Identity", "NoOp")


def _rename(nodes: Nodes, names: Mapping[str, str]) -> Nodes:
    for node in nodes.values():
        node.name = names[node.name]

    def renamed(tensor: str) -> str:
        name, colon, index = tensor.partition(":")
        return f"{names[name]}{colon}{index}"

    reconnect(nodes.values(), renamed)
    return {node.name: node for node in nodes.values()}
