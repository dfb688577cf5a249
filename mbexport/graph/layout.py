"""``--layout nchw``: the interface channels-first. Runs before the passes, which then dissolve the Transposes."""

from __future__ import annotations

import onnx_ir as ir

_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_RANK = 4


def channels_first(model: ir.Model) -> None:
    """Make every 4-D input and output of a channels-last model channels-first, in place."""
    graph = model.graph
    for value in graph.inputs:
        if value.shape is not None and len(value.shape) == _RANK:
            readers = list(value.uses())
            node = ir.node("Transpose", [value], {"perm": _TO_LAST}, name=f"{value.name}/layout")
            graph.insert_before(next(iter(graph)), node)
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            for reader, index in readers:
                reader.replace_input_with(index, node.outputs[0])
            value.shape = ir.Shape([value.shape[axis] for axis in _TO_FIRST])
    for index, value in enumerate(list(graph.outputs)):
        if value.shape is not None and len(value.shape) == _RANK:
            node = ir.node("Transpose", [value], {"perm": _TO_FIRST}, name=f"{value.name}/layout")
            graph.append(node)
            result = node.outputs[0]
            result.type, result.shape = value.type, ir.Shape([value.shape[axis] for axis in _TO_FIRST])
            result.name, value.name = value.name, f"{value.name}/channels_last"
            graph.outputs[index] = result
