"""The canonical graph with one of its parts written in another exact form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mbexport.graph import tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Rewrite = Callable[[ir.Model], None]

CANONICAL = "canonical"


@dataclass(frozen=True)
class Form:
    """``rewrite`` turns the canonical graph into this form, in place."""

    part: str
    name: str
    rewrite: Rewrite


def forms() -> list[Form]:
    """Every form, part by part. Those that leave a network as it is do not apply to it."""
    return [
        Form("hard-swish", "Mul(x, HardSigmoid(x))", hard_swish_as_gate),
        Form("hard-swish", "Add, Clip, Mul, Mul", hard_swish_spelled_out),
        Form("gate", "HardSigmoid", gate_as_hard_sigmoid),
        Form("gate", "Add, Clip, Mul", gate_spelled_out),
        Form("ReLU6", "Relu, Min", relu6_as_relu_min),
        Form("ReLU6", "Max, Min", relu6_as_max_min),
        Form("global pool", "ReduceMean", pool_as_mean),
        Form("squeeze-excite", "Gemm instead of 1x1 Conv", gates_as_gemm),
        Form("gate", "resized to the map (batch 1)", gate_resized),
        Form("classifier", "1x1 Conv", classifier_as_conv),
        Form("classifier", "Gemm for the layer before it too", head_as_gemm),
        Form("classifier", "Gemm with transB", classifier_transposed),
        Form("input", "Rescaling's scale not folded", scale_unfolded),
        Form("input", "no Transpose: rows of pixels as one channel", first_conv_reads_rows),
        Form("batch", "static, 1", static_batch),
    ]


def find(model: ir.Model, op_type: str) -> Iterator[ir.Node]:
    return (node for node in list(model.graph) if node.op_type == op_type)


def clips(model: ir.Model, top: float) -> list[ir.Node]:
    """The Clip nodes with that upper bound: 1 in squeeze-excite's gates, 6 in ReLU6."""
    return [node for node in find(model, "Clip") if tools.scalar(node.inputs[2]) == top]


def unfolded_gate(model: ir.Model, gate: ir.Node) -> ir.Value:
    """What Keras's hard sigmoid reads: the convolution before slope 1/6 and offset 1/2 were folded into it."""
    conv = made_by(gate.inputs[0], "Conv")
    kernel, bias = array_of(conv.inputs[1]) * np.float32(6), array_of(conv.inputs[2]) * np.float32(6) - np.float32(3)
    named = (("unfolded_kernel", kernel), ("unfolded_bias", bias))
    constants = [tools.add_initializer(model.graph, f"{conv.name}/{name}", array) for name, array in named]
    return tools.new_node(gate, "Conv", [conv.inputs[0], *constants], dict(conv.attributes))


def number(model: ir.Model, value: float) -> ir.Value:
    return tools.add_initializer(model.graph, f"number_{value:g}", np.asarray(value, np.float32))


def substitute(model: ir.Model, node: ir.Node, result: ir.Value) -> None:
    tools.replace(node.outputs[0], result)
    tools.finish(model, modified=True)


def hard_swish_as_gate(model: ir.Model) -> None:
    for node in find(model, "HardSwish"):
        (x,) = node.inputs
        gate = tools.new_node(node, "HardSigmoid", [x], {"alpha": 1 / 6, "beta": 0.5})
        substitute(model, node, tools.new_node(node, "Mul", [x, gate]))


def hard_swish_spelled_out(model: ir.Model) -> None:
    zero, three, six, sixth = (number(model, value) for value in (0, 3, 6, 1 / 6))
    for node in find(model, "HardSwish"):
        (x,) = node.inputs
        clipped = tools.new_node(node, "Clip", [tools.new_node(node, "Add", [x, three]), zero, six])
        substitute(model, node, tools.new_node(node, "Mul", [tools.new_node(node, "Mul", [x, clipped]), sixth]))


def gate_as_hard_sigmoid(model: ir.Model) -> None:
    for gate in clips(model, 1):
        raw = unfolded_gate(model, gate)
        substitute(model, gate, tools.new_node(gate, "HardSigmoid", [raw], {"alpha": 1 / 6, "beta": 0.5}))


def gate_spelled_out(model: ir.Model) -> None:
    zero, three, six, sixth = (number(model, value) for value in (0, 3, 6, 1 / 6))
    for gate in clips(model, 1):
        shifted = tools.new_node(gate, "Add", [unfolded_gate(model, gate), three])
        clipped = tools.new_node(gate, "Clip", [shifted, zero, six])
        substitute(model, gate, tools.new_node(gate, "Mul", [clipped, sixth]))


def relu6_as_relu_min(model: ir.Model) -> None:
    for node in clips(model, 6):
        relu = tools.new_node(node, "Relu", [node.inputs[0]])
        substitute(model, node, tools.new_node(node, "Min", [relu, node.inputs[2]]))


def relu6_as_max_min(model: ir.Model) -> None:
    for node in clips(model, 6):
        above = tools.new_node(node, "Max", [node.inputs[0], node.inputs[1]])
        substitute(model, node, tools.new_node(node, "Min", [above, node.inputs[2]]))


def pool_as_mean(model: ir.Model) -> None:
    for node in find(model, "GlobalAveragePool"):
        substitute(model, node, tools.new_node(node, "ReduceMean", [node.inputs[0]], {"axes": [2, 3]}))


def gates_as_gemm(model: ir.Model) -> None:
    """GlobalAveragePool, then the block's two products on (N, C), then back to (N, C, 1, 1)."""
    for gate in clips(model, 1):
        excite = made_by(gate.inputs[0], "Conv")
        relu = made_by(excite.inputs[0], "Relu")
        squeeze = made_by(relu.inputs[0], "Conv")
        flat = reshaped(model, gate, squeeze.inputs[0], [0, -1])
        inner = tools.new_node(gate, "Relu", [product(model, gate, flat, squeeze)])
        scale = tools.new_node(gate, "Clip", [product(model, gate, inner, excite), *gate.inputs[1:]])
        substitute(model, gate, reshaped(model, gate, scale, [0, -1, 1, 1]))


def gate_resized(model: ir.Model) -> None:
    """ONNX Runtime then multiplies in its blocked layout, which takes equal, static shapes."""
    if not clips(model, 1):
        return
    static_batch(model)
    shapes = {name: kind.tensor_type.shape.dim for name, kind in tools.inferred_types(model).items()}
    for node in clips(model, 1):
        (use,) = node.outputs[0].uses()
        mul = use.node
        data = mul.inputs[1 - use.idx]
        assert data is not None
        height, width = (float(dim.dim_value) for dim in shapes[data.name or ""][2:])
        scales = tools.add_initializer(model.graph, f"{mul.name}/scales", np.array([1, 1, height, width], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        mul.replace_input_with(use.idx, tools.new_node(mul, "Resize", [node.outputs[0], None, scales], how))


def classifier_as_conv(model: ir.Model) -> None:
    for gemm in find(model, "Gemm"):
        flat = gemm.inputs[0].producer() if gemm.inputs[0] is not None else None
        if flat is None or flat.op_type != "Reshape":
            continue
        matrix = array_of(gemm.inputs[1])
        kernel = tools.add_initializer(model.graph, f"{gemm.name}/kernel", matrix.T[:, :, None, None])
        conv = tools.new_node(gemm, "Conv", [flat.inputs[0], kernel, gemm.inputs[2]])
        substitute(model, gemm, reshaped(model, gemm, conv, [0, -1]))


def head_as_gemm(model: ir.Model) -> None:
    """MobileNetV3's ``conv_2``, which stands between the global pool and the classifier."""
    for gemm in find(model, "Gemm"):
        flat = gemm.inputs[0].producer() if gemm.inputs[0] is not None else None
        act = flat.inputs[0].producer() if flat is not None and flat.op_type == "Reshape" and flat.inputs[0] else None
        conv = act.inputs[0].producer() if act is not None and act.inputs[0] is not None else None
        if act is None or conv is None or conv.op_type != "Conv":
            continue
        pooled = reshaped(model, gemm, conv.inputs[0], [0, -1])
        active = tools.new_node(gemm, act.op_type, [product(model, gemm, pooled, conv)])
        gemm.replace_input_with(0, active)
    tools.finish(model, modified=True)


def classifier_transposed(model: ir.Model) -> None:
    for gemm in find(model, "Gemm"):
        matrix = tools.add_initializer(model.graph, f"{gemm.name}/transposed", array_of(gemm.inputs[1]).T)
        gemm.replace_input_with(1, matrix)
        gemm.attributes.add(ir.AttrInt64("transB", 1))
    tools.finish(model, modified=True)


def scale_unfolded(model: ir.Model) -> None:
    scale = 1 / 127.5
    for node in find(model, "Add"):
        if node.inputs[0] is not model.graph.inputs[0]:
            continue
        conv = next(find(model, "Conv"))
        kernel = array_of(conv.inputs[1]) / scale
        conv.replace_input_with(1, tools.add_initializer(model.graph, "unscaled_kernel", kernel.astype(np.float32)))
        scaled = tools.new_node(node, "Mul", [node.inputs[0], number(model, scale)])
        substitute(model, node, tools.new_node(node, "Add", [scaled, number(model, -1.0)]))


def first_conv_reads_rows(model: ir.Model) -> None:
    """(N, H, W, 3) seen as (N, 1, H, 3 W): the kernel's columns are a pixel's three colours, then the next pixel's."""
    conv = next(find(model, "Conv"))
    transpose = made_by(conv.inputs[0], "Transpose")
    pixels, kernel = transpose.inputs[0], array_of(conv.inputs[1])
    filters, colours, rows, columns = kernel.shape
    shape = model.graph.inputs[0].shape
    assert shape is not None
    height, width = (side for side in shape[1:3] if isinstance(side, int))
    flat = reshaped(model, conv, pixels, [0, 1, height, width * colours])
    stretched = kernel.transpose(0, 2, 3, 1).reshape(filters, 1, rows, columns * colours)
    attributes = {
        "strides": [step * by for step, by in zip(conv.attributes.get_ints("strides"), (1, colours), strict=True)],
        "pads": [pad * by for pad, by in zip(conv.attributes.get_ints("pads"), (1, colours, 1, colours), strict=True)],
    }
    inputs = [flat, tools.add_initializer(model.graph, "row_kernel", stretched), *conv.inputs[2:]]
    substitute(model, conv, tools.new_node(conv, "Conv", inputs, attributes))


def static_batch(model: ir.Model) -> None:
    made = [value for node in model.graph for value in node.outputs]
    for value in (*model.graph.inputs, *made):
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *value.shape[1:]])


def made_by(value: ir.Value | None, op_type: str) -> ir.Node:
    node = tools.producer(value, op_type)
    assert node is not None, f"{value} is not made by {op_type}"
    return node


def array_of(value: ir.Value | None) -> NDArray[Any]:
    array = tools.constant(value)
    assert array is not None
    return array


def reshaped(model: ir.Model, before: ir.Node, value: ir.Value | None, shape: list[int]) -> ir.Value:
    target = tools.add_initializer(model.graph, f"{before.name}/shape", np.array(shape, np.int64))
    return tools.new_node(before, "Reshape", [value, target])


def product(model: ir.Model, before: ir.Node, flat: ir.Value, conv: ir.Node) -> ir.Value:
    """``flat`` (N, C) times the matrix of a 1x1 convolution."""
    kernel = array_of(conv.inputs[1])
    matrix = tools.add_initializer(model.graph, f"{conv.name}/matrix", kernel.reshape(kernel.shape[:2]).T)
    return tools.new_node(before, "Gemm", [flat, matrix, conv.inputs[2]])
