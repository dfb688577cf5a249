"""A copy of a finished graph that one fault is put into. Names stay, so that tensors can still be compared by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class BatchNorm:
    """What a convolution's folded batch norm was, one number a channel: the file no longer tells."""

    variance: NDArray[np.float64]
    beta: NDArray[np.float64]


@dataclass(frozen=True)
class Correct:
    """A right model as mbexport writes it (float32 input), and the folded batch norms by their convolution's node."""

    model: onnx.ModelProto
    batch_norms: Mapping[str, BatchNorm] = field(default_factory=dict)


class Draft:
    """``model`` is a copy that may be altered; ``inserted`` names the nodes that were put in."""

    def __init__(self, correct: Correct) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(correct.model)
        self.batch_norms = correct.batch_norms
        self.inserted: list[str] = []

    def nodes(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if node.op_type == op_type]

    def producer(self, tensor: str) -> onnx.NodeProto:
        found: onnx.NodeProto = next(node for node in self.model.graph.node if tensor in node.output)
        return found

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if tensor in node.input]

    def array(self, tensor: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._constant(tensor))

    def set_array(self, tensor: str, array: NDArray[Any]) -> None:
        """Other numbers in a constant of the same shape and type."""
        constant = self._constant(tensor)
        right = numpy_helper.to_array(constant)
        assert array.shape == right.shape, f"{tensor} has shape {right.shape}, not {array.shape}"
        constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, right.dtype), tensor))

    def drop_last_input(self, node: onnx.NodeProto) -> None:
        """Remove a constant that a node reads last, from the graph too where nothing else reads it."""
        tensor = node.input.pop()
        if self.readers(tensor):
            return
        graph = self.model.graph
        graph.initializer.remove(self._constant(tensor))
        for info in [info for info in graph.value_info if info.name == tensor]:
            graph.value_info.remove(info)

    def insert_before(
        self, node: onnx.NodeProto, op_type: str, constants: Sequence[Any] = (), **attributes: Any
    ) -> None:
        """Let ``op_type`` change what a node reads as its first input. Other readers of it are left alone."""
        made = self._insert(self._position(node), node, op_type, constants, **attributes)
        made.input[0], node.input[0] = node.input[0], made.output[0]

    def insert_after(
        self, node: onnx.NodeProto, op_type: str, constants: Sequence[Any] = (), **attributes: Any
    ) -> None:
        """Let ``op_type`` change a node's result. Its readers read the changed one, under the name it had."""
        made = self._insert(self._position(node) + 1, node, op_type, constants, **attributes)
        made.output[0], node.output[0] = node.output[0], f"{node.output[0]}/right"
        made.input[0] = node.output[0]

    def _insert(
        self, position: int, beside: onnx.NodeProto, op_type: str, constants: Sequence[Any], **attributes: Any
    ) -> onnx.NodeProto:
        """A new node, whose first input is still to be set."""
        name = f"{beside.name.rpartition('/')[0]}/{op_type}_fault"  # exporters too would name it after that layer
        graph, inputs = self.model.graph, [""]
        for index, value in enumerate(constants):
            inputs.append(f"{name}/{index}")
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), inputs[-1]))
        graph.node.insert(position, helper.make_node(op_type, inputs, [name], name, **attributes))
        self.inserted.append(name)
        made: onnx.NodeProto = graph.node[position]
        return made

    def _position(self, node: onnx.NodeProto) -> int:
        return next(index for index, other in enumerate(self.model.graph.node) if other.name == node.name)

    def _constant(self, tensor: str) -> onnx.TensorProto:
        found: onnx.TensorProto = next(entry for entry in self.model.graph.initializer if entry.name == tensor)
        return found


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """An attribute's value; None where the node has none of that name."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return None if found is None else helper.get_attribute_value(found)


def set_attributes(node: onnx.NodeProto, **values: Any) -> None:
    """Set these attributes and leave the others."""
    kept = [entry for entry in node.attribute if entry.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])
