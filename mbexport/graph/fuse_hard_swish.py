"""x times HardSigmoid(x) -> HardSwish(x), from opset 14 on."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mbexport.graph import tools

FIRST_OPSET = 14
_FLOAT32_ROUNDING = 1e-6


class FuseHardSwish(ir.passes.InPlacePass):
    """Both runtimes run HardSwish fastest as one node; OpenVINO runs Mul(x, HardSigmoid(x)) 1.25 to 1.5 x slower."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        if tools.opset(model) >= FIRST_OPSET:
            for node in list(model.graph):
                data = _match(node)
                if data is not None:
                    tools.replace(node.outputs[0], tools.new_node(node, "HardSwish", [data]))
                    modified = True
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=modified)


def _match(node: ir.Node) -> ir.Value | None:
    if node.op_type != "Mul" or node.domain != "":
        return None
    for data, gate in (node.inputs, node.inputs[::-1]):
        sigmoid = tools.producer(gate, "HardSigmoid")
        if sigmoid is None or data is None or sigmoid.inputs[0] is not data:
            continue
        alpha = sigmoid.attributes.get_float("alpha", 0.2)
        beta = sigmoid.attributes.get_float("beta", 0.5)
        if math.isclose(alpha, 1 / 6, rel_tol=_FLOAT32_ROUNDING) and math.isclose(beta, 0.5, rel_tol=_FLOAT32_ROUNDING):
            return data
    return None
