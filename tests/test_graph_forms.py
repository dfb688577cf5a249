"""The passes that choose among exact forms: the first convolution's scale, the global pool, the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper

from mbexport.graph.classifier_gemm import ClassifierGemm
from mbexport.graph.fold_hard_sigmoid import FoldHardSigmoid
from mbexport.graph.fold_scale import FoldScale
from mbexport.graph.global_pool import GlobalPool
from mbexport.graph.spell_out_hard_swish import SpellOutHardSwish
from tests.graphs import assert_same, model, noise, ops, run

if TYPE_CHECKING:
    import onnx_ir as ir

    Shapes = dict[str, list[int | str | None]]


def applied(graph_pass: ir.passes.InPlacePass, graph: ir.Model, shape: list[int]) -> bool:
    """Whether the pass changed the graph; it must not change what the graph computes."""
    x = noise(shape)
    before = run(graph, x)
    modified = graph_pass(graph).modified
    assert_same(before, run(graph, x))
    return modified


def rescaled(*nodes: Any, scale: Any = 1 / 127.5, offset: Any = -1.0, outputs: tuple[str, ...] = ()) -> ir.Model:
    """NHWC picture -> scale -> offset -> Transpose -> Conv with zero padding."""
    named: Shapes = {"y": ["n", 4, 3, 3], **{name: ["n", 6, 6, 3] for name in outputs}}
    constants = {"s": np.asarray(scale, np.float32), "t": np.asarray(offset, np.float32), "w": noise([4, 3, 3, 3], 1)}
    tail = [
        helper.make_node("Transpose", ["b"], ["p"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["p", "w"], ["y"], strides=[2, 2], pads=[0, 0, 1, 1]),
    ]
    return model([*nodes, *tail], ["n", 6, 6, 3], named, constants)


MUL, ADD = helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("Add", ["a", "t"], ["b"])


@pytest.mark.parametrize(
    "nodes",
    [
        (MUL, ADD),
        (helper.make_node("Div", ["x", "s"], ["a"]), helper.make_node("Sub", ["a", "t"], ["b"])),
        (helper.make_node("Mul", ["s", "x"], ["a"]), helper.make_node("Add", ["t", "a"], ["b"])),
    ],
)
def test_scale_goes_into_the_kernel_and_the_offset_stays(nodes: tuple[Any, ...]) -> None:
    graph = rescaled(*nodes)
    assert applied(FoldScale(), graph, [2, 6, 6, 3])
    assert ops(graph) == ["Add", "Transpose", "Conv"]


def test_keras_rescaling_becomes_minus_127_5_exactly() -> None:
    """So that whole pixel values lose nothing: float32's own 1 / 127.5 is off by 4e-10."""
    graph = rescaled(MUL, ADD)
    FoldScale()(graph)
    constant = next(node for node in graph.graph if node.op_type == "Add").inputs[1]
    assert constant.const_value.numpy() == np.float32(-127.5)  # type: ignore[union-attr]


def test_scale_without_offset_or_transpose() -> None:
    nodes = [helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("Conv", ["a", "w"], ["y"], pads=[1, 1, 1, 1])]
    constants = {"s": np.float32(0.3), "w": noise([4, 3, 3, 3], 1)}
    graph = model(nodes, [1, 3, 5, 5], {"y": [1, 4, 5, 5]}, constants)
    assert applied(FoldScale(), graph, [1, 3, 5, 5])
    assert ops(graph) == ["Conv"]


@pytest.mark.parametrize(
    "graph",
    [
        rescaled(MUL, ADD, scale=0.0),
        rescaled(MUL, ADD, scale=1e-44),
        rescaled(MUL, ADD, scale=1e-37),
        rescaled(MUL, ADD, scale=[0.1, 0.2, 0.3]),
        rescaled(MUL, ADD, offset=[1, 2, 3]),
        rescaled(MUL, ADD, outputs=("a",)),
        rescaled(MUL, ADD, outputs=("b",)),
        rescaled(MUL, helper.make_node("Sub", ["t", "a"], ["b"])),
        rescaled(helper.make_node("Div", ["s", "x"], ["a"]), ADD),
    ],
    ids=[
        "zero",
        "denormal",
        "kernel would vanish",
        "per channel",
        "offsets",
        "scaled is output",
        "shifted is output",
        "t - x",
        "s / x",
    ],
)
def test_scale_that_is_not_one_number_stays(graph: ir.Model) -> None:
    with np.errstate(divide="ignore"):
        assert not applied(FoldScale(), graph, [2, 6, 6, 3])


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, 2]])
def test_mean_over_all_spatial_dimensions_is_the_global_pool(axes: list[int]) -> None:
    graph = model([helper.make_node("ReduceMean", ["x"], ["y"], axes=axes)], ["n", 3, 4, 5], {"y": ["n", 3, 1, 1]})
    assert applied(GlobalPool(), graph, [2, 3, 4, 5])
    assert ops(graph) == ["GlobalAveragePool"]


def test_mean_with_axes_as_input() -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    graph = model([node], ["n", 3, 4, 5], {"y": ["n", 3, 1, 1]}, {"axes": np.array([2, 3])}, opset=18)
    assert applied(GlobalPool(), graph, [2, 3, 4, 5])


@pytest.mark.parametrize(
    ("axes", "keepdims", "shape"), [([2, 3], 0, [2, 3]), ([1, 2], 1, [2, 1, 1, 5]), ([3], 1, [2, 3, 4, 1])]
)
def test_other_means_stay(axes: list[int], keepdims: int, shape: list[int]) -> None:
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=keepdims)
    assert not applied(GlobalPool(), model([node], [2, 3, 4, 5], {"y": shape}), [2, 3, 4, 5])


def classifier(
    *, side: int = 1, target: tuple[int, ...] = (0, 5), outputs: tuple[str, ...] = (), **attributes: Any
) -> ir.Model:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="logits/Conv", **attributes),
        helper.make_node("Reshape", ["c", "shape"], ["y"], name="flatten/Reshape"),
    ]
    group = attributes.get("group", 1)
    constants = {"w": noise([5, 10 // group, 1, 1], 1), "b": noise([5], 2), "shape": np.array(target, np.int64)}
    named: Shapes = {"y": [None, None], **{name: ["n", 5, side, side] for name in outputs}}
    return model(nodes, ["n", 10, side, side], named, constants)


@pytest.mark.parametrize("target", [(0, 5), (0, -1), (-1, 5)])
def test_flattened_classifier_becomes_a_matrix_product(target: tuple[int, ...]) -> None:
    graph = classifier(target=target)
    assert applied(ClassifierGemm(), graph, [3, 10, 1, 1])
    assert ops(graph) == ["Reshape", "Gemm"]


def test_classifier_without_bias() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Reshape", ["c", "shape"], ["y"])]
    constants = {"w": noise([5, 10, 1, 1], 1), "shape": np.array([0, 5])}
    graph = model(nodes, ["n", 10, 1, 1], {"y": ["n", 5]}, constants)
    assert applied(ClassifierGemm(), graph, [3, 10, 1, 1])


@pytest.mark.parametrize(
    "graph",
    [
        classifier(side=2, target=(0, 20)),
        classifier(group=5),
        classifier(pads=[1, 1, 1, 1], strides=[3, 3]),
        classifier(target=(0, 5, 1)),
        classifier(outputs=("c",)),
    ],
    ids=["a map", "groups", "padded", "three dimensions", "read unflattened"],
)
def test_other_convolutions_stay(graph: ir.Model) -> None:
    side = graph.graph.inputs[0].shape[2]  # type: ignore[index]
    assert not applied(ClassifierGemm(), graph, [3, 10, side, side])  # type: ignore[list-item]


def gated(opset: int, alpha: float = 1 / 6) -> ir.Model:
    nodes = [
        helper.make_node("HardSigmoid", ["x"], ["gate"], alpha=alpha, beta=0.5),
        helper.make_node("Mul", ["gate", "x"], ["y"]),
    ]
    return model(nodes, ["n", 40], {"y": ["n", 40]}, opset=opset)


def test_hard_swish_is_spelled_out_where_there_is_no_operator_for_it() -> None:
    graph = gated(13)
    assert applied(SpellOutHardSwish(), graph, [2, 40])
    assert sorted(ops(graph)) == ["Add", "Clip", "Mul", "Mul"]


@pytest.mark.parametrize("graph", [gated(14), gated(13, alpha=0.2)], ids=["opset 14", "another gate"])
def test_other_gates_stay(graph: ir.Model) -> None:
    assert not applied(SpellOutHardSwish(), graph, [2, 40])


def gate_behind_conv(*, bias: bool = True, outputs: tuple[str, ...] = (), scale: float = 1.0) -> ir.Model:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["c"]),
        helper.make_node("HardSigmoid", ["c"], ["y"], alpha=1 / 6, beta=0.5),
    ]
    constants = {"w": scale * noise([5, 10, 1, 1], 1), "b": noise([5], 2)}
    named: Shapes = {"y": ["n", 5, 2, 2], **{name: ["n", 5, 2, 2] for name in outputs}}
    return model(nodes, ["n", 10, 2, 2], named, {name: constants[name] for name in ("wb" if bias else "w")})


@pytest.mark.parametrize("bias", [True, False])
def test_gate_behind_a_convolution_becomes_a_clip(bias: bool) -> None:
    graph = gate_behind_conv(bias=bias)
    assert applied(FoldHardSigmoid(), graph, [3, 10, 2, 2])
    assert ops(graph) == ["Conv", "Clip"]


def test_gate_of_a_result_that_is_read_elsewhere_stays() -> None:
    assert not applied(FoldHardSigmoid(), gate_behind_conv(outputs=("c",)), [3, 10, 2, 2])
