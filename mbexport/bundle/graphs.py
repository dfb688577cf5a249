"""Is a stranger's graph safe to give to an engine: all of it in the file, and its tensors of a bounded size?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbexport.artifact import Artifact, read_reference
from mbexport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

MOST_BYTES = 8 * 2**30
_BYTES, _BYTES_OF_A_NUMBER = 2**28, 2**12
"""For any graph, and for each number of its input on top: 2.7 GB for four pictures of 224 pixels, of which the float32
file of MobileNetV2 1.4 writes 0.3 GB."""
_MOST_INTEGERS = 2**20
"""In one result of int64, since that may be the shape of another one, of as many dimensions."""
_MOST_SHAPE_BYTES = 2**16
"""Of a constant whose values decide about sizes."""
_DENSEST = 8
"""Bytes of a number for each byte in the file: protobuf packs a small int64 into one."""


def model_names(artifact: Artifact) -> list[str]:
    """The files of its graphs."""
    return sorted(set(artifact.manifest.models.values()))


def refuse_unsafe(where: str, artifact: Artifact) -> None:
    """Refuse graphs that keep weights outside of the file, which could lie anywhere on the machine that loads them, and
    those whose tensors would take more memory than any network here needs, at the sizes of the stored reference.

    Raises:
        BundleError: it is so, or sizes are not known before the graph runs; the message names the node.
        ArtifactError: the reference cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    shapes = [next(iter(one.inputs.values())).shape for one in read_reference(artifact).each]
    for name in model_names(artifact):
        place = f"{where}: {artifact.manifest.slug}/{name}"
        try:
            model = onnx.load(artifact.path / name, load_external_data=False)
        except DecodeError as error:
            raise BundleError(f"{place} is not an ONNX model") from error
        try:
            _refuse_stretched(model)
            for shape in shapes:
                _refuse_large(model.graph, _Sizes(model, artifact.manifest.input.name, shape))
        except BundleError as error:
            raise BundleError(f"{place} {' '.join(str(error).split())}") from error


def _refuse_stretched(model: ModelProto) -> None:
    """Every number is in the file, and no node stands for others."""
    from onnx.external_data_helper import uses_external_data

    if model.functions or model.graph.sparse_initializer:
        raise BundleError("holds functions or sparse weights, which no network here needs")
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            raise BundleError("keeps weights outside of the file")
        if math.prod(tensor.dims) * _item_bytes(tensor.data_type) > _DENSEST * tensor.ByteSize():
            raise BundleError(f"holds a tensor {tensor.name} of {list(tensor.dims)} and not all of its numbers")


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor that a message holds, however deep."""
    from onnx import TensorProto

    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if isinstance(value, Sequence) else [value]:
                if isinstance(item, TensorProto):
                    yield item
                else:
                    yield from _tensors(item)


class _Sizes:
    """The types of a graph's tensors, as ONNX's own inference finds them from the input's shape and the constants:
    what the file says of its inner tensors is not believed. One node at a time, since inferring a hostile graph as a
    whole may itself take any memory.
    """

    def __init__(self, model: ModelProto, input_name: str, shape: Sequence[int]) -> None:
        from onnx import helper

        weights = model.graph.initializer
        self.imports, self.ir_version = list(model.opset_import), model.ir_version
        self.opsets = {opset.domain: opset.version for opset in model.opset_import}
        self.constants = {one.name: one for one in weights if one.ByteSize() <= _MOST_SHAPE_BYTES}
        self.types = {one.name: helper.make_tensor_type_proto(one.data_type, one.dims) for one in weights}
        for value in model.graph.input:
            if value.name == input_name:
                self.types[input_name] = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shape)
        self.most_bytes = min(MOST_BYTES, _BYTES + _BYTES_OF_A_NUMBER * math.prod(shape))

    def results(self, node: NodeProto) -> dict[str, TypeProto]:
        """What it writes; raises :class:`BundleError` where ONNX cannot tell."""
        from onnx import checker, defs, shape_inference

        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(node.op_type, self.opsets[node.domain], node.domain),
                node,
                {name: self.types[name] for name in node.input if name},
                {name: self.constants[name] for name in node.input if name in self.constants},
                opset_imports=self.imports,
                ir_version=self.ir_version,
            )
            return {name: found[name] for name in node.output if name}
        except KeyError as error:
            raise BundleError(f"has a node {_told(node)} with an unknown {error}") from error
        except (defs.SchemaError, shape_inference.InferenceError, checker.ValidationError) as error:
            raise BundleError(f"has a node {_told(node)} that ONNX cannot tell the results of: {error}") from error


def _refuse_large(graph: GraphProto, sizes: _Sizes) -> None:
    from onnx import AttributeProto

    total_bytes = 0
    for node in graph.node:
        if any(one.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS} for one in node.attribute):
            raise BundleError(f"has a node {_told(node)} with a graph in it, whose tensors have no known size")
        for name, found in sizes.results(node).items():
            total_bytes += _size_bytes(node, found)
            sizes.types[name] = found
        if total_bytes > sizes.most_bytes:
            raise BundleError(
                f"writes more than the {sizes.most_bytes} bytes that it may, {total_bytes} up to node {_told(node)}"
            )


def _size_bytes(node: NodeProto, found: TypeProto) -> int:
    from onnx import TensorProto

    tensor = found.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim]
    if not found.HasField("tensor_type") or not tensor.HasField("shape") or min(sides, default=0) < 0:
        raise BundleError(f"has a node {_told(node)} whose results have no size that is known before it runs")
    count = math.prod(sides)
    if tensor.elem_type == TensorProto.INT64 and count > _MOST_INTEGERS:
        raise BundleError(f"has a node {_told(node)} that writes {count} integers, more than {_MOST_INTEGERS}")
    return count * _item_bytes(tensor.elem_type)


def _item_bytes(kind: int) -> int:
    from onnx import helper

    try:
        return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except KeyError as error:
        raise BundleError(f"holds numbers of an unknown type, {kind}") from error


def _told(node: NodeProto) -> str:
    return f"{node.name or next(iter(node.output), '')} ({node.op_type})"
