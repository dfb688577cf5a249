"""Compute what does not depend on the input, and drop what nothing reads. All of it onnxscript's and onnx-ir's work."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from mbexport.graph import tools

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_LIMIT_BYTES = 2**40
_ROOM_BYTES = 2**24
"""So much may the constants grow by what is folded: an Expand can make gigabytes out of one number."""
_MISREAD = frozenset(["ConcatFromSequence", "SequenceAt", "SplitToSequence"])
_KEEPS_SHAPE_VALUES = frozenset(["Identity", "Abs", "Squeeze", "Reshape", "Concat", "Gather", "Add"])


class FoldConstants(ir.passes.InPlacePass):
    """Fold with onnx's reference evaluator, which is NumPy: the bytes do not depend on the CPU's instruction set."""

    def requires(self, model: ir.Model) -> None:
        """Besides the opset: no node that onnxscript (0.7) rewrites to something else.

        It takes a Shape's result for one-dimensional even behind a Reshape, and for positive even behind an addition; a
        CastLike for one without attributes; and a split into a sequence for one that keeps its dimension.
        """
        tools.require_known(model)
        misread = [f"{node.op_type} {node.name}" for node in model.graph if _is_misread(node)]
        if misread:
            raise ir.passes.PreconditionError(f"onnxscript would misread {', '.join(misread)}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript import optimizer

        before = tools.Contents(model)
        sizes = (value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
        most_bytes = sum(sizes) + _ROOM_BYTES
        with _defaults_hidden(model.graph):
            optimizer.fold_constants(
                model, onnx_shape_inference=False, input_size_limit=_NO_LIMIT_BYTES, output_size_limit=most_bytes
            )
            ir.passes.Sequential(
                common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
                common.RemoveUnusedNodesPass(),
            )(model)
        # Neither package counts all that it does: a result left out, an attribute dropped.
        return ir.passes.PassResult(model, modified=tools.Contents(model) != before)

    def ensures(self, model: ir.Model) -> None:
        """ONNX Runtime warns of initializers that nothing reads."""
        values = model.graph.initializers.values()
        dead = [
            value.name for value in values if not (value.uses() or value.is_graph_output() or value.is_graph_input())
        ]
        if dead:
            raise ir.passes.PostconditionError(f"nothing reads the initializers {dead}")


def _is_misread(node: ir.Node) -> bool:
    if node.domain != "":
        return False
    if node.op_type == "CastLike":
        return bool(node.attributes)
    if node.op_type == "Abs":
        return _is_shape(node.inputs[0], reshaped=True)
    if node.op_type in _MISREAD:
        return True
    return node.op_type == "Gather" and node.attributes.get_int("axis", None) == 0 and _is_shape(node.inputs[0])


def _is_shape(value: ir.Value | None, *, reshaped: bool = False) -> bool:
    """Whether the value comes from a Shape with a Reshape in between."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or node.op_type not in {"Shape", *_KEEPS_SHAPE_VALUES}:
        return False
    if node.op_type == "Shape":
        return reshaped
    return any(_is_shape(source, reshaped=reshaped or node.op_type == "Reshape") for source in node.inputs)


@contextmanager
def _defaults_hidden(graph: ir.Graph) -> Iterator[None]:
    """Without the values of initializers that are inputs too: a caller may give others, and onnxscript would fold them.

    It would also drop those that nothing reads any more, which turns an input that may be left out into one that must
    be given.
    """
    hidden = {value: value.const_value for value in graph.inputs if value.is_initializer()}
    for value in hidden:
        del graph.initializers[value.name or ""]
        value.const_value = None
    try:
        yield
    finally:
        for value, tensor in hidden.items():
            value.const_value = tensor
            graph.register_initializer(value)
