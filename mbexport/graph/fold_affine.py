"""Batch norm into convolution: Conv, then Mul, Div, Add, Sub by a constant per channel -> Conv.

tf2onnx writes Keras's inference-time batch norm as ``x * s + t`` with constants ``s`` and ``t`` per channel. The chain
is folded in float64 and rounded to float32 once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AFFINE = {"Mul", "Div", "Add", "Sub"}


class FoldAffine(ir.passes.InPlacePass):
    """Declines where the Conv's output is read by anything else, or where a constant differs within a channel."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            if node.op_type == "Conv" and node.domain == "" and _fold(model.graph, node):
                modified = True
        return tools.finish(model, modified=modified)


def _fold(graph: ir.Graph, conv: ir.Node) -> bool:
    found = tools.conv_constants(conv)
    if found is None:
        return False
    kernel, offset = found
    scale = np.ones(kernel.shape[0])
    last = conv.outputs[0]
    while (step := _next_step(last, kernel)) is not None:
        node, factor, addend = step
        scale, offset, last = scale * factor, offset * factor + addend, node.outputs[0]
    if last is conv.outputs[0]:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        folded = (kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))).astype(np.float32)
        bias = offset.astype(np.float32)
    if not (np.isfinite(folded).all() and np.isfinite(bias).all()):
        return False
    inputs = [
        conv.inputs[0],
        tools.add_initializer(graph, f"{conv.name}/folded_kernel", folded),
        tools.add_initializer(graph, f"{conv.name}/folded_bias", bias),
    ]
    tools.replace(last, tools.new_node(conv, "Conv", inputs, dict(conv.attributes)))
    return True


def _next_step(
    value: ir.Value, kernel: NDArray[np.float64]
) -> tuple[ir.Node, NDArray[np.float64], NDArray[np.float64]] | None:
    """The node that follows as (node, factor, addend) per channel, None where it is no affine step."""
    node = tools.only_use(value)
    if node is None or node.op_type not in _AFFINE or node.domain != "":
        return None
    left, right = node.inputs
    other = right if left is value else left
    array = _per_channel(tools.constant(other), kernel)
    if array is None or (node.op_type in {"Div", "Sub"} and left is not value):
        return None
    one, zero = np.ones_like(array), np.zeros_like(array)
    return {
        "Mul": (node, array, zero),
        "Div": (node, one / array if np.all(array) else one * np.nan, zero),
        "Add": (node, one, array),
        "Sub": (node, one, -array),
    }[node.op_type]


def _per_channel(array: NDArray[np.float32] | None, kernel: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """``array`` as one float64 per output channel, None where it does not broadcast so against (N, C, spatial...)."""
    channels, rank = kernel.shape[0], kernel.ndim
    if array is None or array.dtype != np.float32 or array.ndim > rank:
        return None
    full = array.reshape([1] * (rank - array.ndim) + list(array.shape))
    if any(full.shape[axis] != 1 for axis in range(rank) if axis != 1) or full.shape[1] not in {1, channels}:
        return None
    return np.broadcast_to(full.astype(np.float64).reshape(-1), (channels,)).copy()
