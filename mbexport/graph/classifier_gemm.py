"""A 1x1 convolution of a 1x1 map whose result is flattened -> flatten, then Gemm.

So ends Keras's MobileNetV3: pooling, the classifier as a convolution, Flatten. As a matrix product it
is as fast (docs/forms.md), and every engine knows it for one; MobileNetV2's classifier arrives so too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools

if TYPE_CHECKING:
    import onnx


class ClassifierGemm(ir.passes.InPlacePass):
    """Declines where the map's sides are unknown, or where the convolution's result is also read unflattened."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        reshapes = [node for node in model.graph if node.op_type == "Reshape" and node.domain == ""]
        types = tools.inferred_types(model) if reshapes else {}
        modified = False
        for reshape in reshapes:
            conv = tools.producer(reshape.inputs[0], "Conv")
            if conv is not None and _is_classifier(conv, reshape, types):
                _rewrite(model.graph, conv, reshape)
                modified = True
        return tools.finish(model, modified=modified)


def _is_classifier(conv: ir.Node, reshape: ir.Node, types: dict[str, onnx.TypeProto]) -> bool:
    data, kernel = conv.inputs[0], tools.constant(conv.inputs[1])
    known = types.get(data.name or "") if data is not None else None
    if known is None or kernel is None or kernel.dtype != np.float32:
        return False
    dims = [dim.dim_value for dim in known.tensor_type.shape.dim]
    return (
        kernel.shape[2:] == (1, 1)
        and dims[2:] == [1, 1]
        and _is_plain(conv)
        and tools.only_use(conv.outputs[0]) is reshape
        and _flattens(reshape, kernel.shape[0])
    )


def _is_plain(conv: ir.Node) -> bool:
    """Whether no attribute makes it anything else than a product with the kernel."""
    group = conv.attributes.get_int("group", 1)
    pads = conv.attributes.get_ints("pads", [0])
    return group == 1 and not any(pads)


def _flattens(reshape: ir.Node, channels: int) -> bool:
    """Whether (N, channels, 1, 1) becomes (N, channels) for every N."""
    target = tools.constant(reshape.inputs[1])
    if target is None or reshape.attributes.get_int("allowzero", 0) != 0:
        return False
    return [int(dim) for dim in target] in ([0, channels], [0, -1], [-1, channels])


def _rewrite(graph: ir.Graph, conv: ir.Node, reshape: ir.Node) -> None:
    kernel = tools.constant(conv.inputs[1])
    assert kernel is not None
    matrix = tools.add_initializer(graph, f"{conv.name}/matrix", kernel.reshape(kernel.shape[:2]).T)
    shape = tools.add_initializer(graph, f"{reshape.name}/flat", np.array([0, kernel.shape[1]], np.int64))
    flat = tools.new_node(reshape, "Reshape", [conv.inputs[0], shape])
    bias = [value for value in conv.inputs[2:] if value is not None]
    product = ir.node("Gemm", [flat, matrix, *bias], name=conv.name)
    graph.insert_before(reshape, product)
    tools.replace(reshape.outputs[0], product.outputs[0])
