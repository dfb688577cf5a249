"""Is a stranger's graph safe to give to an engine: all of it in the file, and of a bounded size?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbexport.artifact import Artifact, read_reference
from mbexport.bundle.sizes import item_bytes, refuse_large
from mbexport.bundle.wire import refuse_crowded
from mbexport.errors import BundleError
from mbexport.images import picture_size
from mbexport.pictures import REFERENCE_PICTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message
    from onnx import ModelProto, TensorProto

    from mbexport.manifest import InputContract

_RANK = 4
_DENSEST = 8
"""Bytes of a number for each byte in the file: protobuf packs a small int64 into one."""


def model_names(artifact: Artifact) -> list[str]:
    """The files of its graphs."""
    return sorted(set(artifact.manifest.models.values()))


def refuse_unsafe(artifact: Artifact) -> None:
    """Refuse graphs that keep weights outside of the file, which could lie anywhere on the machine that loads them, and
    those that would take more memory than any network here needs, in whatever validation runs them on.

    Raises:
        BundleError: it is so, or is not known before the graph runs.
        ArtifactError: the reference cannot be read.
    """
    shapes = _shapes(artifact)
    for name in model_names(artifact):
        try:
            model = _model(artifact, name)
            for shape in shapes:
                refuse_large(model, artifact.manifest.input.name, shape)
        except BundleError as error:
            raise BundleError(f"{artifact.path / name} {' '.join(str(error).split())}") from error


def _shapes(artifact: Artifact) -> list[tuple[int, ...]]:
    """Of all that the network will be run on: stored inputs of each size, and golden pictures."""
    stored, contract = read_reference(artifact), artifact.manifest.input
    if len(contract.shape) != _RANK:
        raise BundleError(f"{artifact.path}: its input contract is of no pictures")
    height, width = picture_size(contract)
    shapes = [next(iter(one.inputs.values())).shape for one in stored.each]
    for golden in stored.golden:
        if golden.picture.shape[:2] != (height, width):
            raise BundleError(f"{artifact.path}: a golden picture is not as large as the input contract says")
        channels = golden.picture.shape[2]
        shown = (height, width, channels) if contract.layout == "nhwc" else (channels, height, width)
        shapes.append((REFERENCE_PICTURES, *shown))
    for shape in shapes:
        if any(side not in {None, found} for side, found in zip(contract.shape[1:], shape[1:], strict=True)):
            raise BundleError(f"{artifact.path}: its pictures are not as large as the input contract says")
    return list(dict.fromkeys((contract.shape[0] or shape[0], *shape[1:]) for shape in shapes))


def _model(artifact: Artifact, name: str) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not name.endswith(".onnx"):
        raise BundleError("is not called .onnx; an engine that goes by names would take it for something else")
    data = (artifact.path / name).read_bytes()
    refuse_crowded(data)
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise BundleError("is not an ONNX model") from error
    _refuse_stretched(model)
    _refuse_other_input(model, artifact.manifest.input)
    return model


def _refuse_stretched(model: ModelProto) -> None:
    """Every number is in the file, and no node stands for others."""
    from onnx.external_data_helper import uses_external_data

    if model.functions or model.graph.sparse_initializer:
        raise BundleError("holds functions or sparse weights, which no network here needs")
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            raise BundleError("keeps weights outside of the file")
        if min(tensor.dims, default=0) < 0:
            raise BundleError(f"holds a tensor {tensor.name} of {list(tensor.dims)}")
        if math.prod(tensor.dims) * item_bytes(tensor.data_type) > _DENSEST * tensor.ByteSize():
            raise BundleError(f"holds a tensor {tensor.name} of {list(tensor.dims)} and not all of its numbers")


def _refuse_other_input(model: ModelProto, contract: InputContract) -> None:
    """Engines hold a graph to the shape of its input that it tells, so that it is run on no other one."""
    weights = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    shapes = [
        [side.dim_value if side.HasField("dim_value") else None for side in one.type.tensor_type.shape.dim]
        for one in inputs
    ]
    if [one.name for one in inputs] != [contract.name] or shapes != [contract.shape]:
        raise BundleError(f"takes {shapes}, and its contract says {contract.shape}")


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
