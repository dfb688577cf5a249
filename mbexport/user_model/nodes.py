"""A TensorFlow graph as a dict of its nodes, which can be cut and renamed as a Graph cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

Nodes = dict[str, Any]
"""Name -> NodeDef, in the graph's order."""


def producer(tensor: str) -> str:
    """The node that makes a tensor: ``Split:1`` -> ``Split``."""
    return tensor.partition(":")[0]


def short(tensor: str) -> str:
    """``Relu:0`` -> ``Relu``, as nodes name what they read."""
    return tensor.removesuffix(":0")


def data_inputs(node: Any) -> list[str]:
    """What a node reads, without the nodes (``^name``) that it merely waits for."""
    return [name for name in node.input if not name.startswith("^")]


def needed(nodes: Nodes, outputs: Iterable[str]) -> set[str]:
    """The nodes that ``outputs``, tensors, are computed from."""
    found: set[str] = set()
    stack = [producer(name) for name in outputs]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(producer(tensor) for tensor in data_inputs(nodes[name]))
    return found


def following(nodes: Nodes, start: str) -> set[str]:
    """The nodes that are computed from node ``start``, and itself."""
    readers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for tensor in data_inputs(node):
            readers.setdefault(producer(tensor), []).append(name)
    found: set[str] = set()
    stack = [start]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(readers.get(name, ()))
    return found


def reconnect(nodes: Collection[Any], new_name: Callable[[str], str]) -> None:
    """Let each node read ``new_name(tensor)`` where it read ``tensor``, and wait for nothing else."""
    for node in nodes:
        inputs = [new_name(tensor) for tensor in data_inputs(node)]
        del node.input[:]
        node.input.extend(inputs)
