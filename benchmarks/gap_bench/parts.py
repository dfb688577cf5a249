"""The nodes of a canonical graph by what they are, with their multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterator

_FUSED = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Add"}
"""What both runtimes fuse into the convolution before it."""


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product. ``names`` are those of the node and of what is fused into it."""

    kind: str
    macs: int
    names: frozenset[str]


def products(model: onnx.ModelProto) -> list[Product]:
    """Every convolution and matrix product, for one picture."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm", "MatMul"}:
            kernel, output = weights[node.input[1]], shapes[node.output[0]]
            macs = int(np.prod(kernel)) * int(np.prod(output[2:]))
            found.append(Product(_kind(node, kernel, output), macs, frozenset(_with_fused(node, graph))))
    return found


def _kind(node: onnx.NodeProto, kernel: list[int], output: list[int]) -> str:
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type != "Conv" or output[2:] == [1, 1]:
        return "products on 1x1 maps (gates, head)"
    if attributes.get("group", 1) > 1:
        return "depthwise convolutions"
    return "1x1 convolutions" if kernel[2:] == [1, 1] else "first convolution"


def _with_fused(node: onnx.NodeProto, graph: onnx.GraphProto) -> Iterator[str]:
    """The node's name and those of the nodes that follow it one by one and may be fused into it."""
    yield node.name
    readers = [other for other in graph.node if node.output[0] in other.input]
    if len(readers) == 1 and readers[0].op_type in _FUSED:
        yield from _with_fused(readers[0], graph)
