"""Move every Transpose towards the outputs until it meets its inverse and both vanish.

TensorFlow's convolutions are channels-last and ONNX's channels-first, so tf2onnx puts a pair of Transposes round each.
One walk in topological order suffices: when a node is reached, the Transposes of its inputs have come as far as they
can, so ``op(T(x))`` becomes ``T(op(x))`` and ``T'(T(x))`` becomes one Transpose or none.

A rule either states the exact equivalent or declines; what it declines keeps its Transpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# fmt: off
UNARY = frozenset((
    "Abs", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign",
    "Sqrt", "Tanh", "ThresholdedRelu",
))
# fmt: on
BROADCASTING = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
REDUCING = frozenset(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"])

Perm = tuple[int, ...]


class SinkTransposes(ir.passes.InPlacePass):
    """Works on a copy and keeps it only where fewer Transposes are left."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        moved = model.clone()
        tools.infer_shapes(moved)
        for node in list(moved.graph):
            rule = _rule(node)
            if rule is not None:
                rule(moved.graph, node)
        tools.finish(moved, modified=True)
        fewer = _count(moved) < _count(model)
        if fewer:
            model.graph = moved.graph
        return ir.passes.PassResult(model, modified=fewer)


def _count(model: ir.Model) -> int:
    return sum(node.op_type == "Transpose" for node in model.graph)


def _rule(node: ir.Node) -> Callable[[ir.Graph, ir.Node], None] | None:
    if node.domain != "" or len(node.outputs) != 1:
        return None
    if node.op_type in UNARY:
        return _unary
    if node.op_type in BROADCASTING:
        return _broadcasting
    if node.op_type in REDUCING:
        return _reduce
    return {"Transpose": _merge, "Concat": _concat, "Pad": _pad, "Reshape": _reshape}.get(node.op_type)


def _source(value: ir.Value | None) -> tuple[ir.Value, Perm] | None:
    """(x, perm) where the value is Transpose(x, perm)."""
    node = tools.producer(value, "Transpose")
    if node is None or node.inputs[0] is None or "perm" not in node.attributes:
        return None
    return node.inputs[0], tuple(node.attributes.get_ints("perm"))


def _shape_of(value: ir.Value, order: Sequence[int]) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape([value.shape[axis] for axis in order])


def _inverse(perm: Perm) -> Perm:
    return tuple(int(axis) for axis in np.argsort(perm))


def _finish(node: ir.Node, inputs: Sequence[ir.Value | None], perm: Perm, attributes: dict[str, Any]) -> None:
    """Replace ``node`` by Transpose(op(inputs), perm)."""
    moved = tools.new_node(node, node.op_type, inputs, attributes)
    moved.type, moved.shape = node.outputs[0].type, _shape_of(node.outputs[0], _inverse(perm))
    _transpose(node, moved, perm)


def _transpose(node: ir.Node, value: ir.Value, perm: Perm) -> None:
    """Let ``node``'s readers read Transpose(value, perm), or ``value`` itself where perm is the identity."""
    if perm == tuple(range(len(perm))) and not _is_interface(value, node.outputs[0]):
        tools.replace(node.outputs[0], value)
    else:
        tools.replace(node.outputs[0], tools.new_node(node, "Transpose", [value], {"perm": list(perm)}))


def _is_interface(value: ir.Value, output: ir.Value) -> bool:
    """Whether replacing would rename a graph input, a constant or another output."""
    return output.is_graph_output() and (value.is_graph_input() or value.is_graph_output() or value.is_initializer())


def _merge(_graph: ir.Graph, node: ir.Node) -> None:
    found, own = _source(node.inputs[0]), _source(node.outputs[0])
    if found is not None and own is not None:
        source, first = found
        _transpose(node, source, tuple(first[axis] for axis in own[1]))


def _unary(_graph: ir.Graph, node: ir.Node) -> None:
    found = _source(node.inputs[0])
    if found is not None:
        source, perm = found
        _finish(node, [source, *node.inputs[1:]], perm, dict(node.attributes))


def _broadcasting(graph: ir.Graph, node: ir.Node) -> None:
    sources = [_source(value) for value in node.inputs]
    perms = {found[1] for found in sources if found is not None}
    if len(perms) != 1:
        return
    perm = perms.pop()
    inputs: list[ir.Value] = []
    for value, found in zip(node.inputs, sources, strict=True):
        moved = found[0] if found is not None else _moved_constant(graph, value, perm)
        if moved is None:
            return
        inputs.append(moved)
    _finish(node, inputs, perm, dict(node.attributes))


def _moved_constant(graph: ir.Graph, value: ir.Value | None, perm: Perm) -> ir.Value | None:
    """The constant as it must be to broadcast against the untransposed tensor; None where it cannot."""
    array = tools.constant(value)
    if value is None or array is None or array.ndim > len(perm):
        return None
    if array.size == 1:
        return value
    full = array.reshape([1] * (len(perm) - array.ndim) + list(array.shape))
    return tools.add_initializer(graph, f"{value.name}/moved", full.transpose(_inverse(perm)))


def _reduce(graph: ir.Graph, node: ir.Node) -> None:
    found = _source(node.inputs[0])
    axes = tools.reduced_axes(node)
    if found is None or axes is None:
        return
    source, perm = found
    axes = [axis % len(perm) for axis in axes]
    kept = [axis for axis in range(len(perm)) if axis not in axes]
    moved = sorted(perm[axis] for axis in axes)
    attributes = {name: value for name, value in node.attributes.items() if name != "axes"}
    inputs: list[ir.Value | None] = [source]
    if len(node.inputs) > 1:
        inputs.append(tools.add_initializer(graph, f"{node.name}/axes", np.array(moved, np.int64)))
    else:
        attributes["axes"] = ir.AttrInt64s("axes", moved)
    if node.attributes.get_int("keepdims", 1):
        _finish(node, inputs, perm, attributes)
    else:
        order = [perm[axis] for axis in kept]
        _finish(node, inputs, tuple(sorted(order).index(axis) for axis in order), attributes)


def _concat(_graph: ir.Graph, node: ir.Node) -> None:
    sources = [found for found in map(_source, node.inputs) if found is not None]
    perms = {perm for _, perm in sources}
    if len(sources) == len(node.inputs) and len(perms) == 1:
        perm = perms.pop()
        axis = perm[int(node.attributes.get_int("axis", 0)) % len(perm)]
        _finish(node, [source for source, _ in sources], perm, {"axis": axis})


def _pad(graph: ir.Graph, node: ir.Node) -> None:
    found, pads = _source(node.inputs[0]), tools.constant(node.inputs[1])
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if found is None or pads is None or has_axes:
        return
    source, perm = found
    inverse = _inverse(perm)
    moved = pads.reshape(2, len(perm))[:, list(inverse)].reshape(-1)
    value = tools.add_initializer(graph, f"{node.name}/pads", moved)
    _finish(node, [source, value, *node.inputs[2:]], perm, dict(node.attributes))


def _reshape(_graph: ir.Graph, node: ir.Node) -> None:
    """A Transpose that moves only dimensions of size 1 changes no memory order, so Reshape can do without it."""
    found, target = _source(node.inputs[0]), tools.constant(node.inputs[1])
    if found is None or target is None or node.attributes.get_int("allowzero", 0) != 0:
        return
    source, perm = found
    shape = source.shape
    if shape is None:
        return
    long_axes = [axis for axis in perm if shape[axis] != 1]
    copied = [index for index, dim in enumerate(target) if dim == 0]
    if long_axes == sorted(long_axes) and all(perm[index] == index for index in copied):
        node.replace_input_with(0, source)
