"""A float32 graph as quantisation sees it: products with constant weights, and who reads what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from mbexport.errors import ArtifactError, InputError
from mbexport.quantize.normal_form import with_gemm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PRODUCTS = {"Conv", "Gemm"}
FUSED = {"Relu", "Clip"}
"""Activations that engines compute within the product before them."""


@dataclass(frozen=True)
class Product:
    """A Conv or Gemm with constant weights.

    ``kernel`` is (outputs, inputs of a group, kernel height, kernel width) for both, 1x1 for a Gemm.
    """

    node: onnx.NodeProto
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    groups: int

    @property
    def name(self) -> str:
        """The node's, or its output's where it has none."""
        return str(self.node.name or self.node.output[0])

    @property
    def input(self) -> str:
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        return str(self.node.output[0])

    @property
    def is_depthwise(self) -> bool:
        return self.groups > 1 and self.kernel.shape[1] == 1

    @property
    def is_transposed(self) -> bool:
        """Whether the node keeps its weights as (outputs, inputs), as a Conv does, or the other way round."""
        return self.node.op_type == "Gemm" and not any(
            found.name == "transB" and found.i for found in self.node.attribute
        )

    def integers(self, name: str, default: list[int]) -> list[int]:
        """An attribute such as the strides."""
        return next((list(found.ints) for found in self.node.attribute if found.name == name), default)

    def by_input(self, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scale of the inputs, one for all or one for each group, by output."""
        return np.broadcast_to(scale, self.groups).repeat(len(self.kernel) // self.groups)

    def stored(self, kernel: NDArray[Any]) -> NDArray[Any]:
        """A kernel as the node keeps it."""
        if self.node.op_type != "Gemm":
            return kernel
        flat = kernel[:, :, 0, 0]
        return np.ascontiguousarray(flat.T) if self.is_transposed else flat

    @property
    def channels(self) -> int:
        """Of the input."""
        return int(self.groups * self.kernel.shape[1])

    def input_gain(self, gains: NDArray[np.float64]) -> NDArray[np.float64]:
        """What an error in each input channel does, (channels,), where one in each output counts as ``gains`` say."""
        squares = np.square(self.kernel, dtype=np.float64).sum(axis=(2, 3))  # (outputs, inputs of a group)
        weighted = (squares * gains[:, None]).reshape(self.groups, -1, squares.shape[1])
        return np.asarray(weighted.sum(axis=1)).reshape(-1)


class Network:
    """A flat ONNX graph, its constants by name, and its products by their output."""

    def __init__(self, model: onnx.ModelProto, *, is_normal: bool = False) -> None:
        """Take a float32 model; ``is_normal`` if its classifier is in the form of :func:`with_gemm` already.

        Raises:
            ArtifactError: a weight is no number.
            InputError: nodes with bodies, or nothing that could be computed in 8 bits.
        """
        self.model = model if is_normal else with_gemm(model)
        self.nodes = [node for node in self.model.graph.node if not _is_constant(node)]
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        self.constants |= {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in self.model.graph.node
            if _is_constant(node)
        }
        self.inputs = [value.name for value in self.model.graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in self.model.graph.output]
        self._refuse()

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        """Tensor -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Tensor -> the nodes that read it, each once."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def products(self) -> dict[str, Product]:
        """Output -> product, in the graph's order."""
        return {node.output[0]: product for node in self.nodes if (product := self._product(node)) is not None}

    def flowing(self, node: onnx.NodeProto) -> Iterator[str]:
        """The inputs of a node that are no constants."""
        return (name for name in node.input if name and name not in self.constants)

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The single node that reads a tensor; None where it is read more than once, or an output of the graph."""
        found = self.readers.get(tensor, [])
        return found[0] if len(found) == 1 and tensor not in self.outputs else None

    def clips_at(self, node: onnx.NodeProto) -> tuple[float, float]:
        """The least and the greatest number that a Relu or Clip gives; NaN where that is computed."""
        if node.op_type == "Relu":
            return 0.0, math.inf
        least, most = [*node.input[1:], "", ""][:2]
        return self._bound(least, -math.inf), self._bound(most, math.inf)

    def _bound(self, name: str, default: float) -> float:
        if not name:
            return default
        return float(self.constants[name].reshape(())) if name in self.constants else math.nan

    def _product(self, node: onnx.NodeProto) -> Product | None:
        if node.op_type not in _PRODUCTS or node.input[1] not in self.constants or node.input[0] in self.constants:
            return None
        kernel = self.constants[node.input[1]]
        attributes = {found.name: onnx.helper.get_attribute_value(found) for found in node.attribute}
        if node.op_type == "Gemm":
            if attributes.get("transA") or (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) != (1, 1):
                return None
            kernel = (kernel if attributes.get("transB") else kernel.T)[:, :, None, None]
        bias = self._bias(node, len(kernel))
        padded_itself = attributes.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}
        if kernel.dtype != np.float32 or kernel.ndim != 4 or bias is None or padded_itself:
            return None
        return Product(node, kernel, bias, attributes.get("group", 1))

    def _bias(self, node: onnx.NodeProto, outputs: int) -> NDArray[Any] | None:
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(outputs, np.float32)
        bias = self.constants.get(node.input[2])
        return None if bias is None or bias.size != outputs or bias.shape[-1:] != (outputs,) else bias.reshape(-1)

    def _refuse(self) -> None:
        bodies = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
        for node in self.nodes:
            if any(found.type in bodies for found in node.attribute):
                raise InputError(f"{node.name} ({node.op_type}) holds a graph of its own, which cannot be quantised")
        weights = {name for product in self.products.values() for name in product.node.input[1:]}
        for name, array in self.constants.items():
            floating = np.issubdtype(array.dtype, np.floating)
            if floating and (np.isnan(array).any() or (name in weights and np.isinf(array).any())):  # a bound may be
                raise ArtifactError(f"{name} holds numbers that are not finite; check the weights and build again")
        if not self.products:
            raise InputError("the network has no convolution with constant float32 weights, so nothing to quantise")


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and node.attribute[0].name == "value"
