"""HardSigmoid behind a convolution -> Clip between 0 and 1, its slope and offset folded into the kernel and the bias.

So the gates of squeeze-excite end. OpenVINO fuses the Clip into the convolution; HardSigmoid it runs as a node of its
own, with a copy into another layout before it and one after. ONNX Runtime fuses both. docs/forms.md has the times.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools


class FoldHardSigmoid(ir.passes.InPlacePass):
    """Declines where the convolution's result is read by anything else."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            if node.op_type == "HardSigmoid" and node.domain == "":
                modified |= _fold(model.graph, node)
        return tools.finish(model, modified=modified)


def _fold(graph: ir.Graph, gate: ir.Node) -> bool:
    conv = tools.producer(gate.inputs[0], "Conv")
    if conv is None or tools.only_use(conv.outputs[0]) is not gate:
        return False
    found = tools.conv_constants(conv)
    if found is None:
        return False
    kernel, bias = found
    slope, offset = gate.attributes.get_float("alpha", 0.2), gate.attributes.get_float("beta", 0.5)
    with np.errstate(over="ignore"):
        folded = [array.astype(np.float32) for array in (kernel * slope, bias * slope + offset)]
    if not all(np.isfinite(array).all() for array in folded):
        return False
    names = (f"{conv.name}/gate_kernel", f"{conv.name}/gate_bias")
    constants = [tools.add_initializer(graph, name, array) for name, array in zip(names, folded, strict=True)]
    line = tools.new_node(conv, "Conv", [conv.inputs[0], *constants], dict(conv.attributes))
    zero, one = (tools.add_initializer(graph, f"{conv.name}/{n}", np.array(n, np.float32)) for n in (0, 1))
    # Named after the convolution: Keras's hard sigmoid is no layer there, so the gate has no name of its own.
    clip = ir.node("Clip", [line, zero, one], name=f"{conv.name}__Clip")
    graph.insert_before(gate, clip)
    tools.replace(gate.outputs[0], clip.outputs[0])
    return True
