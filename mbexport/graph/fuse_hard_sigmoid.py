"""Add(b), Clip(0, m), times 1/m -> HardSigmoid(alpha=1/m, beta=b/m); Keras's hard sigmoid has b = 3 and m = 6."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mbexport.graph import tools

_FLOAT32_ROUNDING = 1e-6


class FuseHardSigmoid(ir.passes.InPlacePass):
    """Declines where an intermediate result is read elsewhere."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            matched = _match(node)
            if matched is not None:
                data, alpha, beta = matched
                fused = tools.new_node(node, "HardSigmoid", [data], {"alpha": alpha, "beta": beta})
                tools.replace(node.outputs[0], fused)
                modified = True
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=modified)


def _match(last: ir.Node) -> tuple[ir.Value, float, float] | None:
    """(input, alpha, beta) where ``last`` ends the pattern."""
    scaled = _scaled(last)
    if scaled is None:
        return None
    clip, alpha = scaled
    low, high = (tools.scalar(value) for value in clip.inputs[1:3]) if len(clip.inputs) == 3 else (None, None)
    if low != 0.0 or high is None or high <= 0 or not math.isclose(alpha * high, 1.0, rel_tol=_FLOAT32_ROUNDING):
        return None
    add = tools.producer(clip.inputs[0], "Add")
    if add is None or tools.only_use(add.outputs[0]) is not clip:
        return None
    for data, shift in (add.inputs, add.inputs[::-1]):
        number = tools.scalar(shift)
        if number is not None and data is not None and _keeps_rank(shift):
            return data, alpha, number * alpha
    return None


def _scaled(last: ir.Node) -> tuple[ir.Node, float] | None:
    """(the Clip, its factor) for Clip / m, Clip * f and f * Clip."""
    if last.op_type not in {"Mul", "Div"} or last.domain != "":
        return None
    pairs = [last.inputs] if last.op_type == "Div" else [last.inputs, last.inputs[::-1]]
    for data, other in pairs:
        clip, number = tools.producer(data, "Clip"), tools.scalar(other)
        if clip is not None and number and _keeps_rank(other) and tools.only_use(clip.outputs[0]) is last:
            return clip, (1.0 / number if last.op_type == "Div" else number)
    return None


def _keeps_rank(value: ir.Value | None) -> bool:
    """Whether broadcasting with this one-element constant cannot add a dimension."""
    array = tools.constant(value)
    return array is not None and array.ndim == 0
