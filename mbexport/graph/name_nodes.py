"""The last pass: one order, and names from the Keras layers, whatever the converter counted on the way.

Nodes come in the depth-first order in which the outputs need them. A node is named ``<layer>/<operator>``, its result
likewise, and the constants of a layer ``<layer>/kernel``, ``<layer>/bias`` or after the operator that reads them. The
same network therefore gives the same bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir

from mbexport.graph import tools

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

    def requires(self, model: ir.Model) -> None:
        tools.require_flat(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        before = tools.Contents(model)
        interface = {id(value) for value in (*graph.inputs, *graph.outputs)}
        taken = {value.name or "" for value in (*graph.inputs, *graph.outputs)}
        order = list(_depth_first(graph))
        read = (value for node in order for value in node.inputs if value is not None)
        constants = {id(value): value for value in (*read, *graph.inputs, *graph.outputs) if _is_constant(value)}
        graph.remove(list(graph))
        graph.extend(order)
        graph.initializers.clear()
        named = set(interface)
        for node in order:
            _name(node, named, taken)
        for value in constants.values():
            graph.register_initializer(value)
        _forget_history(order)
        return ir.passes.PassResult(model, modified=tools.Contents(model) != before)

    def ensures(self, model: ir.Model) -> None:
        """What reads the file tells values, and nodes, apart by their names alone."""
        graph = model.graph
        made = (value.name for node in graph for value in node.outputs if value.name)
        given = dict.fromkeys([*(value.name for value in graph.inputs), *graph.initializers])
        for names in ([*given, *made], [node.name for node in graph]):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ir.passes.PostconditionError(
                    f"these names are given more than once: {', '.join(map(str, twice))}"
                )


def _name(node: ir.Node, named: set[int], taken: set[str]) -> None:
    """Name a node, the constants that it is the first to read, and its results."""
    layer = _layer(node.name or "")
    node.name = _unique(f"{layer}/{node.op_type}", taken)
    for index, value in enumerate(node.inputs):
        if _is_constant(value) and id(value) not in named:
            named.add(id(value))
            role = _ROLES.get((node.op_type, index), node.op_type.lower())
            value.name = _unique(f"{layer}/{role}", taken)  # type: ignore[union-attr]
    for index, value in enumerate(node.outputs):
        if value.name != "" and id(value) not in named:
            value.name = _unique(f"{node.name}/{index}", taken) if index else node.name


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.producer() is None and value.const_value is not None


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
    return re.sub("(/batchnorm)+$", "", layer if slash else name.partition("__")[0]) or "graph"


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
