"""The scale of Keras's Rescaling into the first convolution: Conv(x * s + t) -> Conv(x + t / s), its kernel times s.

The offset stays. Zero padding comes after the Rescaling, where 0 is a grey pixel, so a bias could not stand for it: it
would have to differ along the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools


@dataclass(frozen=True)
class _Scaling:
    """``scale`` multiplies ``data`` by ``factor``; ``shift``, where there is one, adds ``offset`` to the product."""

    scale: ir.Node
    data: ir.Value
    factor: float
    shift: ir.Node | None = None
    offset: float = 0.0


class FoldScale(ir.passes.InPlacePass):
    """Declines where scale or offset is not a single number, or where a result on the way is read elsewhere."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            if node.op_type == "Conv" and node.domain == "":
                modified |= _fold(model.graph, node)
        return tools.finish(model, modified=modified)


def _fold(graph: ir.Graph, conv: ir.Node) -> bool:
    kernel, found = tools.constant(conv.inputs[1]), _scaling_before(conv)
    if found is None or kernel is None or kernel.dtype != np.float32:
        return False
    with np.errstate(over="ignore"):
        scaled = (kernel.astype(np.float64) * found.factor).astype(np.float32)
        offset = np.float32(_simplest(found.offset / found.factor))
    vanished = np.abs(scaled[kernel != 0]) < np.finfo(np.float32).tiny
    if vanished.any() or not (np.isfinite(scaled).all() and np.isfinite(offset)):
        return False
    conv.replace_input_with(1, tools.add_initializer(graph, f"{conv.name}/scaled_kernel", scaled))
    result = found.data
    if found.shift is not None:
        constant = tools.add_initializer(graph, f"{found.shift.name}/offset", np.asarray(offset))
        result = tools.new_node(found.shift, "Add", [found.data, constant])
    last = found.shift or found.scale
    tools.replace(last.outputs[0], result)
    return True


def _simplest(quotient: float) -> float:
    """The number of fewest binary digits that the quotient of two float32 numbers may stand for.

    Each of the two was rounded by up to 2^-24 of itself. Keras's -1 / (1 / 127.5) so is -127.5, to which whole pixel
    values lose no digit, and not -127.49999.
    """
    mantissa, exponent = np.frexp(quotient)
    for bits in range(1, 24):
        rounded = float(np.ldexp(np.rint(mantissa * 2**bits), exponent - bits))
        if abs(rounded - quotient) <= abs(quotient) * 2**-23:
            return rounded
    return quotient


def _scaling_before(conv: ir.Node) -> _Scaling | None:
    """What scales the Conv's input, a Transpose between them allowed, where nothing else reads a result on the way."""
    node = _sole_producer(conv.inputs[0], conv)
    if node is not None and node.op_type == "Transpose":
        node = _sole_producer(node.inputs[0], node)
    if node is None:
        return None
    scaling = _as_scale(node)
    if scaling is not None or node.op_type not in {"Add", "Sub"}:
        return scaling
    return _as_shifted(node)


def _as_shifted(shift: ir.Node) -> _Scaling | None:
    """What adds a number to a product: x * s + t, t + x * s or x * s - t."""
    pairs = [shift.inputs] if shift.op_type == "Sub" else [shift.inputs, shift.inputs[::-1]]
    for product, constant in pairs:
        number, scale = _number(constant), _sole_producer(product, shift)
        scaling = _as_scale(scale) if scale is not None else None
        if scaling is not None and number is not None:
            offset = -number if shift.op_type == "Sub" else number
            return _Scaling(scaling.scale, scaling.data, scaling.factor, shift, offset)
    return None


def _as_scale(node: ir.Node) -> _Scaling | None:
    """What multiplies by a number: x * s, s * x or x / d, with a factor that float32 holds with all its digits."""
    if node.op_type not in {"Mul", "Div"} or node.domain != "":
        return None
    pairs = [node.inputs] if node.op_type == "Div" else [node.inputs, node.inputs[::-1]]
    for data, constant in pairs:
        number = _number(constant)
        if data is None or not number:
            continue
        factor = 1.0 / number if node.op_type == "Div" else number
        if np.finfo(np.float32).tiny <= abs(factor) <= np.finfo(np.float32).max:
            return _Scaling(node, data, factor)
    return None


def _number(value: ir.Value | None) -> float | None:
    """The value as a number where it is one, of a rank that broadcasting cannot pass on."""
    array = tools.constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 and array.ndim < 2 else None


def _sole_producer(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    """The node of the default domain that makes ``value`` for ``reader`` alone."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or value is None or tools.only_use(value) is not reader:
        return None
    return node
