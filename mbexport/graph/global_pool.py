"""ReduceMean over all spatial dimensions -> GlobalAveragePool.

ONNX Runtime has GlobalAveragePool in its blocked layout and ReduceMean not, which saves a copy for each; OpenVINO takes
both alike. docs/forms.md has the times.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from mbexport.graph import tools


class GlobalPool(ir.passes.InPlacePass):
    """Declines where the rank is unknown, or where the dimensions of size 1 are dropped."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        means = [node for node in model.graph if node.op_type == "ReduceMean" and node.domain == ""]
        types = tools.inferred_types(model) if means else {}
        pools = [node for node in means if _is_global_pool(node, types)]  # all before the first changes any name
        for node in pools:
            tools.replace(node.outputs[0], tools.new_node(node, "GlobalAveragePool", node.inputs[:1]))
        return tools.finish(model, modified=bool(pools))


def _is_global_pool(node: ir.Node, types: dict[str, onnx.TypeProto]) -> bool:
    """Whether a float32 (N, C, spatial...) tensor is reduced to (N, C, 1...)."""
    known = types.get(node.inputs[0].name or "") if node.inputs[0] is not None else None
    if known is None:
        return False
    data = known.tensor_type
    rank = len(data.shape.dim)
    axes = tools.reduced_axes(node)
    if (
        axes is None
        or rank < 3
        or data.elem_type != onnx.TensorProto.FLOAT
        or not node.attributes.get_int("keepdims", 1)
    ):
        return False
    return sorted(axis % rank for axis in axes) == list(range(2, rank))
