"""The last pass: one order, and names from the Keras layers, whatever the converter counted on the way.

Nodes come in the depth-first order in which the outputs need them. A node is named ``<layer>/<operator>``, its result
likewise, and the constants of a layer ``<layer>/kernel``, ``<layer>/bias`` or after the operator that reads them. The
same network therefore gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROLES = {
    ("Conv", 1): "kernel",
    ("Conv", 2): "bias",
    ("Gemm", 1): "kernel",
    ("Gemm", 2): "bias",
    ("MatMul", 1): "kernel",
}


class NameNodes(ir.passes.InPlacePass):
    """Interface names stay; everything between is renamed."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        fixed = {id(value) for value in (*graph.inputs, *graph.outputs)}
        taken = {value.name or "" for value in (*graph.inputs, *graph.outputs)}
        order = list(_depth_first(graph))
        graph.remove(list(graph))
        graph.extend(order)
        named: list[ir.Value] = []
        for node in order:
            layer = _layer(node.name or "")
            node.name = _unique(f"{layer}/{node.op_type}", taken)
            for index, value in enumerate(node.inputs):
                if value is not None and value.is_initializer() and id(value) not in fixed:
                    fixed.add(id(value))
                    named.append(value)
                    value.name = _unique(f"{layer}/{_ROLES.get((node.op_type, index), node.op_type.lower())}", taken)
            for value in node.outputs:
                if id(value) not in fixed:
                    value.name = node.name
        kept = [value for value in graph.initializers.values() if id(value) in fixed and value not in named]
        graph.initializers.clear()
        for value in (*kept, *named):
            graph.register_initializer(value)
        _forget_history(order)
        return ir.passes.PassResult(model, modified=True)


def _forget_history(order: list[ir.Node]) -> None:
    """Drop what onnxscript notes on values it folded: the converter's names, which depend on what was built before."""
    for node in order:
        node.metadata_props.clear()
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                value.metadata_props.clear()


def _depth_first(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every node after those that it reads, following each node's inputs from first to last."""
    seen: set[int] = set()
    stack: list[tuple[ir.Node, bool]] = [
        (node, False) for output in reversed(graph.outputs) if (node := output.producer()) is not None
    ]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            makers = [value.producer() for value in reversed(node.inputs) if value is not None]
            stack.extend((maker, False) for maker in makers if maker is not None)


def _layer(name: str) -> str:
    """``expanded_conv/depthwise/convolution__12`` -> ``expanded_conv/depthwise``: all but the operation's own name."""
    layer, slash, _ = name.rpartition("/")
    return (layer if slash else name.partition("__")[0]).removesuffix("/batchnorm") or "graph"


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
