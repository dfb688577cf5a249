"""Reshape whose target is computed at run time from the batch -> Reshape with a constant target.

Keras's Flatten arrives from tf2onnx as Shape, Cast, Slice, Squeeze, Unsqueeze, Concat, Cast, Reshape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx


class StaticReshape(ir.passes.InPlacePass):
    """Declines where a dimension other than the first is unknown."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        reshapes = [node for node in model.graph if _has_computed_target(node)]
        types = tools.inferred_types(model) if reshapes else {}
        modified = False
        for node in reshapes:
            data, wanted, result = (_shape(types, value) for value in (*node.inputs, node.outputs[0]))
            target = _target(data, result) if _fits(wanted, result) else None
            if target is not None and not node.attributes.get_int("allowzero", 0):
                shape = tools.add_initializer(model.graph, f"{node.name}/shape", np.array(target, np.int64))
                node.replace_input_with(1, shape)
                modified = True
        return tools.finish(model, modified=modified)


def _has_computed_target(node: ir.Node) -> bool:
    return node.op_type == "Reshape" and node.domain == "" and tools.constant(node.inputs[1]) is None


def _shape(types: Mapping[str, onnx.TypeProto], value: ir.Value | None) -> ir.Shape | None:
    known = types.get(value.name or "") if value is not None else None
    return None if known is None else ir.serde.deserialize_type_proto_for_shape(known)


def _fits(target: ir.Shape | None, result: ir.Shape | None) -> bool:
    """Whether the target holds a number for each dimension of the result.

    onnx's data propagation takes the shape behind an Unsqueeze for the same row of numbers, and the result's rank then
    comes out wrong.
    """
    return target is not None and result is not None and list(target) == [len(result)]


def _target(data: ir.Shape | None, result: ir.Shape | None) -> Sequence[int] | None:
    """[0, d, e, ...] where only the first dimension is symbolic and is the input's own first."""
    if not data or not result:
        return None
    first = result[0]
    rest = [dim for dim in result[1:] if isinstance(dim, int) and dim > 0]
    if len(rest) != len(result) - 1:
        return None
    if isinstance(first, int):
        return [first, *rest] if first > 0 else None
    same = first.value is not None and first == data[0]
    return [0, *rest] if same else None
