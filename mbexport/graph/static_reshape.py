"""Reshape whose target is computed at run time from the batch -> Reshape with a constant target.

Keras's Flatten arrives from tf2onnx as Shape, Cast, Slice, Squeeze, Unsqueeze, Concat, Cast, Reshape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mbexport.graph import tools

if TYPE_CHECKING:
    from collections.abc import Sequence


class StaticReshape(ir.passes.InPlacePass):
    """Declines where a dimension other than the first is unknown."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        tools.infer_shapes(model)
        modified = False
        for node in list(model.graph):
            if node.op_type != "Reshape" or tools.constant(node.inputs[1]) is not None:
                continue
            target = _target(node.inputs[0], node.outputs[0])
            if target is not None and not node.attributes.get_int("allowzero", 0):
                shape = tools.add_initializer(model.graph, f"{node.name}/shape", np.array(target, np.int64))
                node.replace_input_with(1, shape)
                modified = True
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=modified)


def _target(data: ir.Value | None, result: ir.Value) -> Sequence[int] | None:
    """[0, d, e, ...] where only the first dimension is symbolic and is the input's own first."""
    if data is None or data.shape is None or result.shape is None or not len(result.shape) or not len(data.shape):
        return None
    first = result.shape[0]
    rest = [dim for dim in result.shape[1:] if isinstance(dim, int) and dim > 0]
    if len(rest) != len(result.shape) - 1:
        return None
    if isinstance(first, int):
        return [first, *rest] if first > 0 else None
    same = first.value is not None and first == data.shape[0]
    return [0, *rest] if same else None
