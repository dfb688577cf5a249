"""What an ONNX graph has to do: multiply-accumulates of each node, and the bytes of each tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper, shape_inference

from mbexport.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Shapes = Mapping[str, Sequence[int]]

_UNCOUNTED = {
    *("ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "MatMulInteger", "QLinearMatMul", "Einsum"),
    *("Attention", "LSTM", "GRU", "RNN"),
}
"""Products for which there is no formula here. What is no product has no multiply-accumulates, as everywhere."""
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Work:
    """One node of the file."""

    name: str
    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    macs: int | None
    """None where it cannot be known."""
    form: str | None
    """A convolution's: ``depthwise``, ``grouped``, else its kernel, such as ``1x1``."""


@dataclass(frozen=True)
class Tensor:
    """What is known of one tensor of the graph."""

    elements: int
    floating: bool
    element_bytes: int

    def size_bytes(self, float_bytes: int) -> int:
        """Its size where numbers of the network have ``float_bytes`` each; integers keep their own width."""
        return self.elements * (float_bytes if self.floating else self.element_bytes)


@dataclass(frozen=True)
class GraphWork:
    """A graph for inputs of one shape."""

    nodes: Sequence[Work]
    tensors: Mapping[str, Tensor]
    """Without those whose shape cannot be inferred."""
    results: frozenset[str]
    """The graph's outputs."""

    @property
    def macs(self) -> int | None:
        """Of the whole graph; None where those of one node cannot be known."""
        return total([node.macs for node in self.nodes])

    def moved_bytes(self, nodes: Sequence[Work], float_bytes: int) -> int | None:
        """What ``nodes``, run as one, read (weights included) and write, each tensor once.

        None where a size is not known. Caches are not thought of: this is what memory sees of one node alone.
        """
        made = {name for node in nodes for name in node.outputs}
        others = (node for node in self.nodes if made.isdisjoint(node.outputs))
        wanted = {name for node in others for name in node.inputs} | self.results
        read = {name for node in nodes for name in node.inputs if name} - made
        names = read | (made & wanted)
        if not names <= self.tensors.keys():
            return None
        return sum(self.tensors[name].size_bytes(float_bytes) for name in names)


def total(numbers: Sequence[int | None]) -> int | None:
    """The sum, where each number is known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def read_work(path: Path, shapes: Shapes) -> GraphWork:
    """Read a file and infer its shapes for inputs of ``shapes``.

    Raises:
        ArtifactError: the shapes do not fit the graph.
    """
    return work_of(onnx.load(path), shapes)


def work_of(model: onnx.ModelProto, shapes: Shapes) -> GraphWork:
    """Raises as :func:`read_work` does. The shapes that the model tells of its inner tensors are forgotten."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.ClearField("shape")
    for value in graph.input:
        if value.name in shapes:
            value.type.tensor_type.shape.dim.extend(
                onnx.TensorShapeProto.Dimension(dim_value=side) for side in shapes[value.name]
            )
    try:
        graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ArtifactError(f"the graph does not take inputs of {_text(shapes)}: {error}") from error
    known = {**_tensor_shapes(graph), **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return GraphWork(
        nodes=[_work(node, known) for node in graph.node],
        tensors={name: _tensor(shape, types[name]) for name, shape in known.items()},
        results=frozenset(value.name for value in graph.output),
    )


def node_macs(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    """Multiply-accumulates of one node; a bias or an activation adds none.

    - ``Conv``, kernel (M, C / groups, k...): each element of the output sums C / groups * prod(k) products.
    - ``MatMul`` and ``Gemm``: each element of the output sums as many as the first operand is wide.
    """
    if node.domain or node.op_type in _UNCOUNTED:
        return None
    if node.op_type not in {"Conv", "MatMul", "Gemm"}:
        return 0
    if not {*node.input[:2], node.output[0]} <= shapes.keys():
        return None
    left, right, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(right[1:])
    return math.prod(output) * (left[0] if _attribute(node, "transA", 0) else left[-1])


def _work(node: onnx.NodeProto, shapes: Shapes) -> Work:
    return Work(node.name, node.op_type, [*node.input], [*node.output], node_macs(node, shapes), _form(node, shapes))


def _form(node: onnx.NodeProto, shapes: Shapes) -> str | None:
    if node.op_type != "Conv" or node.input[1] not in shapes:
        return None
    groups, (_, each, *kernel) = _attribute(node, "group", 1), shapes[node.input[1]]
    if groups > 1:
        return "depthwise" if each == 1 else "grouped"
    return "x".join(map(str, kernel))


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(helper.get_attribute_value(entry)) for entry in node.attribute if entry.name == name), default)


def _tensor_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Those that are wholly known."""
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(side.HasField("dim_value") for side in tensor.shape.dim):
            found[value.name] = tuple(side.dim_value for side in tensor.shape.dim)
    return found


def _tensor(shape: Sequence[int], element_type: int) -> Tensor:
    dtype: Any = helper.tensor_dtype_to_np_dtype(element_type)
    return Tensor(math.prod(shape), element_type in _FLOATS, dtype.itemsize)


def _text(shapes: Shapes) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
