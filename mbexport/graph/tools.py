"""Small questions and edits that every pass needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The value's array where it is a constant that no caller can override, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The value as a number where it is a constant with one element, else None."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def only_use(value: ir.Value) -> ir.Node | None:
    """The single node that reads the value, None where it is read more than once or is a graph output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes the value, where it is of that type of the default domain."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Register a new constant under a name made unique."""
    unique, number = name, 0
    while unique in graph.initializers:
        number += 1
        unique = f"{name}_{number}"
    array = np.ascontiguousarray(array)
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
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in model.graph:
        for output in node.outputs:
            info = known.get(output.name)
            if info is not None and info.type.tensor_type.HasField("shape"):
                output.shape = ir.serde.deserialize_type_proto_for_shape(info.type)
                output.type = ir.serde.deserialize_type_proto_for_type(info.type)
