"""x times HardSigmoid(x) -> x * Clip(x + 3, 0, 6) / 6, for OpenVINO at opset 13, which has no HardSwish.

There OpenVINO recognises a hard swish in these four operators and not in those two, ONNX Runtime in those two and not
in these four: no single form is fast on both (docs/forms.md), so an artifact of opset 13 holds a file for each.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools
from mbexport.graph.fuse_hard_swish import FIRST_OPSET, hard_swish_input


class SpellOutHardSwish(ir.passes.InPlacePass):
    """Declines from opset 14 on, where HardSwish is fast on both."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph) if tools.opset(model) < FIRST_OPSET else ():
            data = hard_swish_input(node)
            if data is not None and data.dtype in {ir.DataType.FLOAT, None}:
                tools.replace(node.outputs[0], _spelled_out(model.graph, node, data))
                modified = True
        return tools.finish(model, modified=modified)


def _spelled_out(graph: ir.Graph, node: ir.Node, data: ir.Value) -> ir.Value:
    zero, three, six, sixth = (
        tools.add_initializer(graph, f"{node.name}/{name}", np.array(number, np.float32))
        for name, number in (("zero", 0), ("three", 3), ("six", 6), ("sixth", 1 / 6))
    )
    clipped = tools.new_node(node, "Clip", [tools.new_node(node, "Add", [data, three]), zero, six])
    return tools.new_node(node, "Mul", [tools.new_node(node, "Mul", [data, clipped]), sixth])
