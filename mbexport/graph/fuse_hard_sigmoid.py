"""Add(b), Clip(0, m), times 1/m -> HardSigmoid(alpha=1/m, beta=b/m); Keras's hard sigmoid has b = 3 and m = 6."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools

_FLOAT32_ROUNDING = 1e-6


class FuseHardSigmoid(ir.passes.InPlacePass):
    """Declines where an intermediate result is read elsewhere."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            matched = _match(node)
            if matched is not None:
                data, alpha, beta = matched
                fused = tools.new_node(node, "HardSigmoid", [data], {"alpha": alpha, "beta": beta})
                tools.replace(node.outputs[0], fused)
                modified = True
        return tools.finish(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        left = [node.name for node in model.graph if _match(node) is not None]
        if left:
            raise ir.passes.PostconditionError(f"the nodes {left} still end a hard sigmoid in parts")


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
        number = _float_scalar(shift)
        # Where the gate is open, x * alpha + beta is rounded at the size of beta, x + b at that of the result.
        if number is not None and data is not None and abs(number * alpha) <= 1:
            return data, alpha, number * alpha
    return None


def _scaled(last: ir.Node) -> tuple[ir.Node, float] | None:
    """(the Clip, its factor) for Clip / m, Clip * f and f * Clip."""
    if last.op_type not in {"Mul", "Div"} or last.domain != "":
        return None
    pairs = [last.inputs] if last.op_type == "Div" else [last.inputs, last.inputs[::-1]]
    for data, other in pairs:
        clip, number = tools.producer(data, "Clip"), _float_scalar(other)
        if clip is not None and number and tools.only_use(clip.outputs[0]) is last:
            return clip, (1.0 / number if last.op_type == "Div" else number)
    return None


def _float_scalar(value: ir.Value | None) -> float | None:
    """The number where it is a float32 constant with no dimension, so that broadcasting cannot add one.

    Integers divide otherwise and have no HardSigmoid; float16 and float64 would be rounded otherwise than before.
    """
    array = tools.constant(value)
    return float(array) if array is not None and array.ndim == 0 and array.dtype == np.float32 else None
