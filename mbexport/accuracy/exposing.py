"""A graph cut open: its inner tensors as outputs, and the places where all that follows hangs on one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


def results(model: onnx.ModelProto) -> list[str]:
    """The results of all nodes, in the graph's order."""
    return [name for node in model.graph.node for name in node.output if name]


def expose_all(model: onnx.ModelProto) -> None:
    """Make every result an output, in place."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    names = [name for name in results(model) if name not in outputs]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)  # their types are the engine's to infer


def exposed(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The model with no more than these tensors for outputs, and no more nodes than they need."""
    graph = model.graph
    needed = _ancestors(graph, tensors)
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[:], cut.graph.output[:], cut.graph.initializer[:]
    cut.graph.node.extend(node for node in graph.node if needed.intersection(node.output))
    read = {name for node in cut.graph.node for name in node.input} | set(tensors)
    cut.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    known = {value.name: value for value in graph.output}
    cut.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in tensors)
    return cut


def _ancestors(graph: onnx.GraphProto, tensors: Collection[str]) -> set[str]:
    needed = set(tensors)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed


def cuts(model: onnx.ModelProto) -> Iterator[str]:
    """The tensors, in the graph's order, on which alone all that comes after them depends."""
    constant = {tensor.name for tensor in model.graph.initializer}
    last_read = {
        name: place for place, node in enumerate(model.graph.node) for name in node.input if name not in constant
    }
    end = len(model.graph.node)
    last_read |= {value.name: end for value in model.graph.output}
    live = {value.name for value in model.graph.input if value.name not in constant}
    for place, node in enumerate(model.graph.node):
        live.update(name for name in node.output if name)
        live = {name for name in live if last_read.get(name, -1) > place}
        if len(live) == 1:
            yield next(iter(live))
