"""``--input-type uint8`` and ``--preprocess in-graph``: cast and scaling in front of a channels-last model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from mbexport.spec import InputType

_LAYER = "preprocess"


def preprocess_inside(model: ir.Model, *, input_type: InputType, mean: float = 0.0, scale: float = 1.0) -> None:
    """Let the one input take pictures of 0..255, in place; the model goes on with ``(p - mean) / scale``.

    As Keras's Rescaling it multiplies and then adds, the form whose scale FoldScale takes into the first kernel.
    """
    graph = model.graph
    (pictures,) = (value for value in graph.inputs if not value.is_initializer())
    first, readers = next(iter(graph)), list(pictures.uses())
    result = pictures
    if input_type == "uint8":
        result = _node(graph, first, "Cast", [result], {"to": ir.DataType.FLOAT})
        pictures.type = ir.TensorType(ir.DataType.UINT8)
    if (mean, scale) != (0.0, 1.0):
        factor, offset = (
            ir.Value(name=f"{_LAYER}/{name}", const_value=ir.tensor(np.float32(number), name=f"{_LAYER}/{name}"))
            for name, number in (("scale", 1 / scale), ("offset", -mean / scale))
        )
        for value in (factor, offset):
            graph.register_initializer(value)
        result = _node(graph, first, "Mul", [result, factor])
        result = _node(graph, first, "Add", [result, offset])
    for reader, index in readers:
        reader.replace_input_with(index, result)


def _node(
    graph: ir.Graph, first: ir.Node, op_type: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None
) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, name=f"{_LAYER}/{op_type}")
    graph.insert_before(first, node)
    node.outputs[0].shape, node.outputs[0].type = inputs[0].shape, ir.TensorType(ir.DataType.FLOAT)
    return node.outputs[0]
