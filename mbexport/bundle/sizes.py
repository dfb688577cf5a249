"""How many bytes the tensors of a stranger's graph take, without running it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mbexport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto, TypeProto

    Constants = dict[str, NDArray[np.generic]]

MOST_BYTES = 8 * 2**30
_BYTES, _BYTES_OF_A_NUMBER = 2**28, 2**12
"""For any graph, and for each number of its input on top: 2.7 GB for four pictures of 224 pixels, of which the float32
file of MobileNetV2 1.4 writes 0.3 GB."""
_MOST_INTEGERS, _MOST_SIDES = 2**20, 16
"""In one result of int64, which may be the shape of another; and of one tensor."""
_MOST_SHAPE_NUMBERS = 4 * _MOST_SIDES
"""In a constant whose values may decide about sizes."""
_FOLDED = {"Add", "Cast", "Concat", "Constant", "Div", "Gather", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"}
"""What exporters compute shapes with."""
_HUNGRY = {
    "Attention",
    "CausalConvWithState",
    "Col2Im",
    "DFT",
    "DeformConv",
    "FlexAttention",
    "LinearAttention",
    "STFT",
}
"""Whose working memory may be any multiple of what goes in and comes out; Einsum's too, of more than two operands."""
_PAIR = 2
_CONVOLUTIONS = {"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"}
_NARROW_BYTES = 8
"""Of a number of less than four bytes, for engines widen it, and keep both."""


def refuse_large(model: ModelProto, input_name: str, shape: Sequence[int]) -> None:
    """Refuse a graph whose tensors would take more memory than any network here needs, or an unknown amount.

    Sizes follow from the input's shape and the constants by ONNX's own inference; what the file says of its inner
    tensors is not believed. It goes node by node, since inferring a hostile graph as a whole may itself take any
    memory.

    Args:
        model: without external data, functions and sparse weights.
        input_name: of the graph's only input.
        shape: of that input, as it will be run.

    Raises:
        BundleError: it is so; the message names the node.
    """
    from onnx import AttributeProto

    sizes = _Sizes(model, input_name, shape)
    most_bytes = min(MOST_BYTES, _BYTES + _BYTES_OF_A_NUMBER * math.prod(shape))
    total_bytes = 0
    for node in model.graph.node:
        if any(one.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS} for one in node.attribute):
            raise BundleError(f"has a node {_told(node)} with a graph in it, whose tensors have no known size")
        if node.op_type in _HUNGRY or (node.op_type == "Einsum" and len(node.input) > _PAIR):
            raise BundleError(f"has a node {_told(node)}, which may take any memory to compute")
        total_bytes += sizes.add(node)
        if total_bytes > most_bytes:
            raise BundleError(
                f"takes more than the {most_bytes} bytes that it may, up to node {_told(node)}; "
                "with fewer or smaller pictures a call it takes less"
            )


def item_bytes(kind: int) -> int:
    """Of a number of ONNX's type ``kind``; raises :class:`BundleError` for what is no number."""
    from onnx import TensorProto, helper

    if kind == TensorProto.STRING:
        raise BundleError("holds text, which may be of any length")
    try:
        return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except KeyError as error:
        raise BundleError(f"holds numbers of an unknown type, {kind}") from error


class _Sizes:
    """The types of a graph's tensors, and the values of those that shapes are computed from."""

    def __init__(self, model: ModelProto, input_name: str, shape: Sequence[int]) -> None:
        from onnx import helper

        weights, (value,) = model.graph.initializer, [one for one in model.graph.input if one.name == input_name]
        self.imports, self.ir_version = list(model.opset_import), model.ir_version
        self.opsets = {opset.domain: opset.version for opset in model.opset_import}
        self.types = {one.name: helper.make_tensor_type_proto(one.data_type, one.dims) for one in weights}
        self.types[input_name] = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shape)
        self.constants: Constants = {
            one.name: _value(one) for one in weights if math.prod(one.dims) <= _MOST_SHAPE_NUMBERS
        }

    def add(self, node: NodeProto) -> int:
        """Bytes of its results and of what a convolution takes to compute them."""
        found = self._results(node)
        size_bytes = sum(_size_bytes(node, one) for one in found.values())
        if twice := next((name for name in found if name in self.types), None):
            raise BundleError(f"has a node {_told(node)} that writes {twice}, which is there already")
        self.types |= found
        if node.op_type == "Shape" or node.op_type in _FOLDED:
            self._fold(node, found)
        return size_bytes + (self._columns_bytes(node) if node.op_type in _CONVOLUTIONS else 0)

    def _results(self, node: NodeProto) -> dict[str, TypeProto]:
        """What it writes; raises :class:`BundleError` where ONNX cannot tell."""
        from onnx import checker, defs, numpy_helper, shape_inference

        if node.domain:
            raise BundleError(f"has a node {_told(node)} of another domain than ONNX's, {node.domain!r}")
        known = [name for name in node.input if name in self.constants]
        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(node.op_type, self.opsets[""]),
                node,
                {name: self.types[name] for name in node.input if name},
                {name: numpy_helper.from_array(self.constants[name], name) for name in known},
                opset_imports=self.imports,
                ir_version=self.ir_version,
            )
            return {name: found[name] for name in node.output if name}
        except KeyError as error:
            raise BundleError(f"has a node {_told(node)} with an unknown {error}") from error
        except (defs.SchemaError, shape_inference.InferenceError, checker.ValidationError) as error:
            raise BundleError(f"has a node {_told(node)} that ONNX cannot tell the results of: {error}") from error

    def _fold(self, node: NodeProto, found: dict[str, TypeProto]) -> None:
        """Keep the value of a small result that follows from shapes and constants alone."""
        import numpy as np
        from onnx.reference import ReferenceEvaluator

        names = [name for name in node.input if name]
        sides = {name: _sides(self.types[name]) for name in names} if node.op_type == "Shape" else {}
        if not all(name in self.constants or name in sides for name in names):
            return
        if any(math.prod(_sides(one)) > _MOST_SHAPE_NUMBERS for one in found.values()):
            return
        feeds = {name: np.broadcast_to(np.float32(0), sides[name]) if sides else self.constants[name] for name in names}
        try:
            values = ReferenceEvaluator(node, opsets=self.opsets).run(list(node.output), feeds)
        except Exception as error:  # operators fail with what NumPy raises
            raise BundleError(f"has a node {_told(node)} that cannot be computed: {error}") from error
        self.constants |= dict(zip(node.output, values, strict=True))

    def _columns_bytes(self, node: NodeProto) -> int:
        """Of one picture's patches as columns of a matrix, which engines may lay out in memory.

        One for each place of a convolution's results, or of a transposed one's inputs.
        """
        turned = node.op_type == "ConvTranspose"
        kernel = _sides(self.types[node.input[3 if node.op_type == "QLinearConv" else 1]])
        places = _sides(self.types[node.input[0] if turned else node.output[0]])[2:]
        return math.prod(kernel[1:]) * math.prod(places) * 4


def _value(tensor: TensorProto) -> NDArray[np.generic]:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        raise BundleError(f"holds a tensor {tensor.name} that cannot be read: {error}") from error


def _sides(found: TypeProto) -> list[int]:
    """-1 for one that is not known."""
    return [side.dim_value if side.HasField("dim_value") else -1 for side in found.tensor_type.shape.dim]


def _size_bytes(node: NodeProto, found: TypeProto) -> int:
    from onnx import TensorProto

    sides, tensor = _sides(found), found.tensor_type
    if not found.HasField("tensor_type") or not tensor.HasField("shape") or min(sides, default=0) < 0:
        raise BundleError(f"has a node {_told(node)} whose results have no size that is known before it runs")
    if len(sides) > _MOST_SIDES:
        raise BundleError(f"has a node {_told(node)} that writes a tensor of {len(sides)} sides")
    count = math.prod(sides)
    if tensor.elem_type == TensorProto.INT64 and count > _MOST_INTEGERS:
        raise BundleError(f"has a node {_told(node)} that writes {count} integers, more than {_MOST_INTEGERS}")
    wide_bytes = item_bytes(tensor.elem_type)
    return count * (wide_bytes if wide_bytes >= 4 else _NARROW_BYTES)


def _told(node: NodeProto) -> str:
    return f"{node.name or next(iter(node.output), '')} ({node.op_type})"
