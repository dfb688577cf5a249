"""A float32 graph with its classifier in the form in which engines have an 8-bit one: Gemm."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    Constants = dict[str, NDArray[Any]]

_POINTWISE = {"HardSwish", "Relu", "Clip"}


def with_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose classifier is made of Gemm: of MatMul and Add, and of 1x1 convolutions of a pooled map.

    ONNX Runtime 1.31 has 8-bit kernels for a Gemm whose answer stays float32, and for no other product of that kind: it
    would turn the 8-bit weights of the others into float32 at every call.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    inferred = onnx.shape_inference.infer_shapes(model).graph
    matrices = {
        value.name
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if len(value.type.tensor_type.shape.dim) == 2
    }
    nodes = list(_sums_merged(list(model.graph.node), constants, outputs, matrices))
    nodes = _flattened_earlier(nodes, constants, outputs)
    del copied.graph.node[:], copied.graph.initializer[:]
    copied.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {value.name for value in copied.graph.input}
    copied.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items() if name in read
    )
    return copied


def _sums_merged(
    nodes: list[onnx.NodeProto], constants: Constants, outputs: Sequence[str], matrices: Collection[str]
) -> Iterator[onnx.NodeProto]:
    """MatMul of a matrix with constant weights, and the addition of a vector behind it, as one Gemm."""
    readers = Counter([*outputs, *(name for node in nodes for name in node.input)])
    products = {node.output[0]: node for node in nodes if _multiplies(node, constants) and node.input[0] in matrices}
    merged: dict[str, onnx.NodeProto | None] = {}
    for node in nodes:
        product, bias = _biased(node, products, constants) if node.op_type == "Add" else (None, "")
        if product is not None and readers[product.output[0]] == 1:
            merged[product.output[0]] = None
            merged[node.output[0]] = helper.make_node("Gemm", [*product.input, bias], node.output, name=product.name)
    for node in nodes:
        replacement = merged.get(node.output[0], node)
        if replacement is not None:
            yield replacement


def _multiplies(node: onnx.NodeProto, constants: Constants) -> bool:
    return node.op_type == "MatMul" and node.input[1] in constants and constants[node.input[1]].ndim == 2


def _biased(
    node: onnx.NodeProto, products: dict[str, onnx.NodeProto], constants: Constants
) -> tuple[onnx.NodeProto | None, str]:
    """The product that a vector is added to, and the vector; the weights' (inputs, outputs) tell its length."""
    for tensor, vector in (tuple(node.input), tuple(reversed(node.input))):
        product = products.get(tensor)
        if product is not None and vector in constants:
            outputs = constants[product.input[1]].shape[1]
            if constants[vector].shape == (outputs,):
                return product, vector
    return None, ""


def _flattened_earlier(
    nodes: list[onnx.NodeProto], constants: Constants, outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """GlobalAveragePool, 1x1 Conv, activation, Reshape: as pool, Flatten, Gemm, activation, Reshape."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    flat: set[str] = {node.output[0] for node in nodes if node.op_type == "GlobalAveragePool"}
    written = []
    for node in nodes:
        if node.op_type == "Conv" and node.input[0] in flat and _ends_flat(node, readers, constants, outputs):
            kernel = constants[node.input[1]]
            constants[node.input[1]] = np.ascontiguousarray(kernel.reshape(kernel.shape[:2]).T)
            pooled = f"{node.name}/Flatten"
            written.append(helper.make_node("Flatten", [node.input[0]], [pooled], name=pooled, axis=1))
            written.append(helper.make_node("Gemm", [pooled, *node.input[1:]], node.output, name=node.name))
        else:
            written.append(node)
    return written


def _ends_flat(
    conv: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], constants: Constants, outputs: Sequence[str]
) -> bool:
    """Whether a 1x1 convolution's result goes through activations alone into the Reshape that flattens it."""
    kernel = constants.get(conv.input[1])
    grouped = any(found.name == "group" and found.i != 1 for found in conv.attribute)
    if kernel is None or kernel.shape[2:] != (1, 1) or grouped or len(readers.get(conv.input[1], [])) != 1:
        return False
    node = conv
    while len(following := readers.get(node.output[0], [])) == 1 and node.output[0] not in outputs:
        (node,) = following
        if node.op_type not in _POINTWISE:
            return node.op_type == "Flatten" or (node.op_type == "Reshape" and _flattens(constants.get(node.input[1])))
    return False


def _flattens(shape: NDArray[Any] | None) -> bool:
    return shape is not None and shape.shape == (2,)
