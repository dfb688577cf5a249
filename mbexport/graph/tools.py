"""Small questions and edits that every pass needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

KNOWN_OPSETS = range(13, 29)
"""The opsets between which no operator that a rule names changed its meaning; those before 13 take Clip's bounds,
Pad's pads or ReduceSum's axes as attributes."""

LARGE_ELEMENTS = 1024
"""Shapes, axes and pads, which shape inference reads, are shorter."""


def require_known(model: ir.Model) -> None:
    """The precondition of the passes that rewrite by the operators' definitions.

    Raises:
        onnx_ir.passes.PreconditionError: the opset is not among those known, or the graph is not flat.
    """
    version = model.graph.opset_imports.get("")
    if version not in KNOWN_OPSETS:
        known = f"{KNOWN_OPSETS[0]} to {KNOWN_OPSETS[-1]}"
        raise ir.passes.PreconditionError(f"the default opset must be one of {known}, not {version}")
    require_flat(model)


def require_flat(model: ir.Model) -> None:
    """The precondition of the passes that look at the main graph alone: bodies read values that no input lists.

    Raises:
        onnx_ir.passes.PreconditionError: a node has a body (If, Loop, Scan).
    """
    bodies = [node.op_type for node in model.graph if any(_is_body(value) for value in node.attributes.values())]
    if bodies:
        raise ir.passes.PreconditionError(f"the graph has nodes with bodies: {', '.join(bodies)}")


def _is_body(attribute: ir.Attr) -> bool:
    return attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def finish(model: ir.Model, *, modified: bool) -> ir.passes.PassResult:
    """Tidy up after a pass that changed something, and only then: unique names, nothing that nobody reads."""
    if modified:
        _part_initializers(model.graph)
        # In this order: the first names results left out ("") too, the second leaves them out again.
        ir.passes.Sequential(common.NameFixPass(), common.RemoveUnusedNodesPass())(model)
    return ir.passes.PassResult(model, modified=modified)


def _part_initializers(graph: ir.Graph) -> None:
    """Give new initializers names that no input and no node's result has.

    NameFixPass of onnx-ir 1.1.0 would, and fails where the name that it makes up is another initializer's.
    """
    others = {value.name for value in (*graph.inputs, *(output for node in graph for output in node.outputs))}
    for name, value in list(graph.initializers.items()):
        if name in others and not value.is_graph_input() and not value.is_graph_output():
            value.name = _unique(name, others | graph.initializers.keys())


def _unique(name: str, taken: Collection[str | None]) -> str:
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The value's array where it is a constant that no caller can override, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The value as a number where it is a constant with one element, else None."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def conv_constants(conv: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """A float32 Conv's kernel and bias (zeros where it has none) in float64; None where either is computed."""
    kernel = constant(conv.inputs[1])
    bias_value = conv.inputs[2] if len(conv.inputs) > 2 else None
    bias = constant(bias_value)
    if kernel is None or kernel.dtype != np.float32 or (bias_value is not None and bias is None):
        return None
    zeros = np.zeros(kernel.shape[0])
    return kernel.astype(np.float64), zeros if bias is None else bias.astype(np.float64)


def only_use(value: ir.Value) -> ir.Node | None:
    """The single node that reads the value, None where it is read more than once or is a graph output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes the value, where it is of that type of the default domain."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def reduced_axes(node: ir.Node) -> list[int] | None:
    """A reduction's constant axes, as an attribute or an input; None where they are absent, computed or none at all."""
    if len(node.inputs) > 1:
        array = constant(node.inputs[1])
        return None if array is None or not array.size else [int(axis) for axis in array]
    return list(node.attributes.get_ints("axes", [])) or None


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Register a new constant under a name made unique."""
    unique = _unique(name, graph.initializers)
    array = np.ascontiguousarray(array).reshape(array.shape)  # which would be (1,) for a single number
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of ``old``, the graph's outputs included, read ``new``; an output keeps its name."""
    if new.shape is None:
        new.shape = old.shape
    if new.type is None:
        new.type = old.type
    if old.is_graph_output():
        new.name, old.name = old.name, f"{old.name}/replaced"
        new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def new_node(
    before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None = None
) -> ir.Value:
    """Insert a one-output node before ``before``, named after it, and return the output."""
    node = ir.node(op_type, inputs, attributes, name=f"{before.name}__{op_type}")
    owner = before.graph
    assert isinstance(owner, ir.Graph)
    owner.insert_before(before, node)
    return node.outputs[0]


def opset(model: ir.Model) -> int:
    """The version of the default operator set."""
    return model.graph.opset_imports[""]


def infer_shapes(model: ir.Model) -> None:
    """Set the shapes and types that ONNX can infer, with data propagation, on the model's values."""
    known = inferred_types(model)
    for node in model.graph:
        for output in node.outputs:
            info = known.get(output.name or "")
            if info is not None:
                output.shape = ir.serde.deserialize_type_proto_for_shape(info)
                output.type = ir.serde.deserialize_type_proto_for_type(info)


def inferred_types(model: ir.Model) -> dict[str, onnx.TypeProto]:
    """Each value's type by name, where ONNX can infer its shape, without any change to the model."""
    proto, _ = light_proto(model)
    # A caller may give another value than the initializer's, which onnx's data propagation takes for granted.
    inputs = {value.name for value in proto.graph.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in inputs]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for entry in proto.opset_import:
        if (entry.domain, entry.version) == ("", 13):
            entry.version = 14  # onnx computes the target of no Reshape of opset 13; that of 14 is the same by default
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type for value in values if value.type.tensor_type.HasField("shape")}


def light_proto(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model with its large float32 constants as inputs, and those constants by name.

    Weights are nearly all of a file, and to write and read them again nearly all of the time that a look at it takes.
    """
    initializers = model.graph.initializers
    values = dict(initializers)
    large = {name: tensor for name, value in values.items() if (tensor := _large_constant(value)) is not None}
    for name in large:
        del initializers[name]
    try:
        proto = ir.to_proto(model)
    finally:
        initializers.clear()
        initializers.update(values)  # all anew: their order is that of the file
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.dtype, tensor.shape.numpy()) for name, tensor in large.items()
    )
    return proto, large


def _large_constant(value: ir.Value) -> ir.TensorProtocol | None:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return None
    return tensor if tensor.dtype == ir.DataType.FLOAT and tensor.size > LARGE_ELEMENTS else None


class Contents:
    """A model's state: to go back to, or to compare with a later one, equal only where nothing was changed between."""

    def __init__(self, model: ir.Model) -> None:
        self.proto, self.constants = light_proto(model)
        self._order = tuple(model.graph.initializers)

    def restored(self) -> ir.Model:
        """A model in this state, whatever has become of that which it was taken of."""
        model = ir.from_proto(self.proto)
        graph = model.graph
        values = dict(graph.initializers)
        for value in [value for value in graph.inputs if value.name in self.constants]:
            graph.inputs.remove(value)
            value.const_value = self.constants[value.name or ""]
            values[value.name or ""] = value
        graph.initializers.clear()
        graph.initializers.update((name, values[name]) for name in self._order)
        return model

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Contents) or self.constants.keys() != other.constants.keys():
            return False
        same = all(tensor is other.constants[name] for name, tensor in self.constants.items())
        return same and bool(self.proto == other.proto)

    __hash__ = None  # type: ignore[assignment]  # states change
