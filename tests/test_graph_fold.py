from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from mbexport.graph import PASSES
from mbexport.graph.fold_affine import FoldAffine
from mbexport.graph.fold_constants import FoldConstants
from mbexport.graph.fold_padding import FoldPadding
from mbexport.graph.static_reshape import StaticReshape
from tests.graphs import assert_same, model, noise, ops, run

SHAPE = [2, 4, 6, 7]
KERNEL = noise([8, 4, 3, 3], 1)


def conv_then(*steps: Any, constants: dict[str, Any], outputs: dict[str, Any] | None = None) -> Any:
    kernel = noise([8, 4, 3, 3], 1)
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["v"]), *steps]
    return model(nodes, SHAPE, outputs or {"y": [None] * 4}, {"kernel": kernel, **constants})


def check(graph: Any, graph_pass: Any, expected: list[str], *, modified: bool, shape: list[int] | None = None) -> None:
    x = noise(shape or SHAPE)
    before = run(graph, x)
    assert graph_pass(graph).modified is modified
    assert_same(before, run(graph, x))
    assert ops(graph) == expected


@pytest.mark.parametrize("shape", [(), (1,), (1, 8, 1, 1), (8, 1, 1)], ids=str)
@pytest.mark.parametrize("op", ["Mul", "Div", "Add", "Sub"])
def test_affine_step_per_channel_is_folded(op: str, shape: tuple[int, ...]) -> None:
    step = helper.make_node(op, ["v", "c"], ["y"])
    check(conv_then(step, constants={"c": np.abs(noise(shape, 2)) + 1}), FoldAffine(), ["Conv"], modified=True)


def test_batch_norm_chain_is_folded_at_once() -> None:
    steps = [helper.make_node("Mul", ["s", "v"], ["w"]), helper.make_node("Add", ["w", "t"], ["y"])]
    constants = {"s": noise([1, 8, 1, 1], 2), "t": noise([1, 8, 1, 1], 3)}
    check(conv_then(*steps, constants=constants), FoldAffine(), ["Conv"], modified=True)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (1, 1, 4, 1), (2, 1, 1, 1), (3, 1, 8, 1, 1)], ids=str)
def test_constant_that_is_not_per_channel_declines(shape: tuple[int, ...]) -> None:
    step = helper.make_node("Mul", ["v", "c"], ["y"])
    graph = conv_then(step, constants={"c": noise(shape, 2)}, outputs={"y": [None] * max(4, len(shape))})
    check(graph, FoldAffine(), ["Conv", "Mul"], modified=False)


@pytest.mark.parametrize("op", ["Sub", "Div"])
def test_constant_on_the_left_declines(op: str) -> None:
    step = helper.make_node(op, ["c", "v"], ["y"])
    check(conv_then(step, constants={"c": np.float32(2)}), FoldAffine(), ["Conv", op], modified=False)


def test_conv_read_twice_declines() -> None:
    steps = [helper.make_node("Mul", ["v", "c"], ["w"]), helper.make_node("Add", ["v", "w"], ["y"])]
    check(conv_then(*steps, constants={"c": np.float32(2)}), FoldAffine(), ["Conv", "Mul", "Add"], modified=False)


def test_conv_that_is_an_output_declines() -> None:
    step = helper.make_node("Mul", ["v", "c"], ["y"])
    graph = conv_then(step, constants={"c": np.float32(2)}, outputs={"v": [None] * 4, "y": [None] * 4})
    check(graph, FoldAffine(), ["Conv", "Mul"], modified=False)


def test_division_by_zero_declines() -> None:
    step = helper.make_node("Div", ["v", "c"], ["y"])
    graph = conv_then(step, constants={"c": np.float32(0)})
    assert FoldAffine()(graph).modified is False


def test_shared_kernel_is_folded_for_one_reader_only() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["v"]),
        helper.make_node("Mul", ["v", "c"], ["y"]),
        helper.make_node("Conv", ["x", "kernel"], ["z"]),
    ]
    constants = {"kernel": noise([8, 4, 3, 3], 1), "c": noise([8, 1, 1], 2)}
    graph = model(nodes, SHAPE, {"y": [None] * 4, "z": [None] * 4}, constants)
    check(graph, FoldAffine(), ["Conv", "Conv"], modified=True)


@settings(max_examples=40, deadline=None)
@given(
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    own=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    group=st.sampled_from([1, 2, 4]),
    dilation=st.integers(1, 2),
)
def test_zero_padding_is_folded(pads: list[int], own: list[int], strides: list[int], group: int, dilation: int) -> None:
    constants = {
        "pads": np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64),
        "kernel": noise([8, 4 // group, 3, 2], 1),
    }
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node(
            "Conv", ["p", "kernel"], ["y"], pads=own, strides=strides, group=group, dilations=[dilation, dilation]
        ),
    ]
    check(model(nodes, SHAPE, {"y": [None] * 4}, constants), FoldPadding(), ["Conv"], modified=True)


@pytest.mark.parametrize(
    ("pads", "value", "mode", "auto_pad"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], 1.0, "constant", "NOTSET"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "reflect", "NOTSET"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "constant", "SAME_UPPER"),
        ([1, 0, 0, 0, 0, 0, 0, 0], 0.0, "constant", "NOTSET"),
    ],
)
def test_other_padding_declines(pads: list[int], value: float, mode: str, auto_pad: str) -> None:
    constants = {"pads": np.array(pads, np.int64), "value": np.float32(value), "kernel": noise([8, 4, 3, 3], 1)}
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["p"], mode=mode),
        helper.make_node("Conv", ["p", "kernel"], ["y"], auto_pad=auto_pad),
    ]
    check(model(nodes, SHAPE, {"y": [None] * 4}, constants), FoldPadding(), ["Pad", "Conv"], modified=False)


def test_cropping_declines() -> None:
    constants = {"pads": np.array([0, 0, -1, 0, 0, 0, 0, 0], np.int64), "kernel": noise([8, 4, 3, 3], 1)}
    nodes = [helper.make_node("Pad", ["x", "pads"], ["p"]), helper.make_node("Conv", ["p", "kernel"], ["y"])]
    assert FoldPadding()(model(nodes, SHAPE, {"y": [None] * 4}, constants)).modified is False


def test_valid_convolution_takes_the_pads() -> None:
    constants = {"pads": np.array([0, 0, 0, 1, 0, 0, 2, 0], np.int64), "kernel": noise([8, 4, 3, 3], 1)}
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "kernel"], ["y"], auto_pad="VALID", strides=[2, 2]),
    ]
    check(model(nodes, SHAPE, {"y": [None] * 4}, constants), FoldPadding(), ["Conv"], modified=True)


def test_padding_by_axes_is_folded() -> None:
    constants = {
        "pads": np.array([1, 2, 3, 0], np.int64),
        "axes": np.array([2, -1], np.int64),
        "kernel": noise([8, 4, 3, 3], 1),
    }
    nodes = [
        helper.make_node("Pad", ["x", "pads", "", "axes"], ["p"]),
        helper.make_node("Conv", ["p", "kernel"], ["y"]),
    ]
    check(model(nodes, SHAPE, {"y": [None] * 4}, constants, opset=18), FoldPadding(), ["Conv"], modified=True)


def test_constants_are_folded_and_dead_ones_dropped() -> None:
    nodes = [
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Reciprocal", ["deviation"], ["scale"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Mul", ["same", "scale"], ["y"]),
        helper.make_node("Relu", ["same"], ["nobody"]),
    ]
    graph = model(
        nodes, SHAPE, {"y": SHAPE}, {"variance": np.array([4.0], np.float32), "dead": np.array([1.0], np.float32)}
    )
    check(graph, FoldConstants(), ["Mul"], modified=True)
    assert [float(value.const_value.numpy()[0]) for value in graph.graph.initializers.values()] == [0.5]  # type: ignore[union-attr]


def flatten_like_tf2onnx(shape: list[Any], rest: int = 12) -> Any:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array([0], np.int64), "one": np.array([1], np.int64), "rest": np.array([rest], np.int64)}
    return model(nodes, shape, {"y": [None, None]}, constants)


def test_computed_reshape_becomes_constant_and_keeps_the_batch_free() -> None:
    graph = flatten_like_tf2onnx(["batch", 4, 1, 3])
    for count in (1, 5):
        x = noise([count, 4, 1, 3])
        before = run(flatten_like_tf2onnx(["batch", 4, 1, 3]), x)
        StaticReshape()(graph)
        assert_same(before, run(graph, x))
    assert ops(graph) == ["Reshape"]


def test_reshape_of_unknown_sizes_declines() -> None:
    graph = flatten_like_tf2onnx(["batch", 4, "width", 3], -1)
    assert StaticReshape()(graph).modified is False


def test_two_pads_before_a_convolution_are_folded_at_once() -> None:
    constants = {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64), "kernel": noise([8, 4, 3, 3], 1)}
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Pad", ["p", "pads"], ["q"]),
        helper.make_node("Conv", ["q", "kernel"], ["y"]),
    ]
    check(model(nodes, SHAPE, {"y": [None] * 4}, constants), FoldPadding(), ["Conv"], modified=True)


def test_new_names_stay_clear_of_those_in_use() -> None:
    """A graph input may bear the name that the next unnamed result would get."""
    nodes = [
        helper.make_node("Conv", ["val_0", "kernel"], ["conv/folded_kernel"], name="conv"),
        helper.make_node("Mul", ["conv/folded_kernel", "c"], ["y"]),
        helper.make_node("Relu", ["val_0"], ["conv/folded_bias"]),
        helper.make_node("Neg", ["conv/folded_bias"], ["z"]),
    ]
    proto = ir.to_proto(model([], SHAPE, {"y": [None] * 4, "z": SHAPE}, {"kernel": KERNEL, "c": np.float32(2)}))
    proto.graph.input[0].name = "val_0"
    proto.graph.node.extend(nodes)
    feeds = {"val_0": noise(SHAPE)}
    before = ReferenceEvaluator(proto).run(None, feeds)
    graph = ir.from_proto(proto)
    assert FoldAffine()(graph).modified
    for expected, got in zip(before, ReferenceEvaluator(ir.to_proto(graph)).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def overridable(graph: ir.Model, name: str) -> ir.Model:
    """The graph with an initializer as an input that the caller may leave out or give."""
    graph.graph.inputs.append(graph.graph.initializers[name])
    return graph


def test_shape_that_a_caller_may_override_is_not_folded() -> None:
    """onnxscript takes the default for the shape, and drops what is not read then: the input would have to be given."""
    nodes = [helper.make_node("Reshape", ["c", "shape"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    constants = {"c": noise([1, 4, 6, 7]), "shape": np.array([1, 4, 6, 7], np.int64)}
    graph = overridable(model(nodes, SHAPE, {"y": [None] * 4}, constants), "shape")
    check(graph, FoldConstants(), ["Reshape", "Add"], modified=False)
    assert "shape" in graph.graph.initializers


def test_reshape_target_that_a_caller_may_override_stays() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    graph = overridable(model(nodes, SHAPE, {"y": [None, None]}, {"shape": np.array([2, 168], np.int64)}), "shape")
    check(graph, StaticReshape(), ["Reshape"], modified=False)
    assert graph.graph.node(0).inputs[1] is graph.graph.inputs[1]


def test_reshape_of_another_domain_stays() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"], domain="custom"),
    ]
    graph = model(nodes, SHAPE, {"y": SHAPE})
    graph.graph.opset_imports["custom"] = 1
    assert not StaticReshape()(graph).modified
    assert graph.graph.node(-1).inputs[1] is graph.graph.node(0).outputs[0]


def test_identity_between_two_outputs_stays() -> None:
    """onnx-ir's IdentityEliminationPass gives both outputs one name."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])]
    check(model(nodes, SHAPE, {"z": SHAPE, "y": SHAPE}), FoldConstants(), ["Relu", "Identity"], modified=False)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (
            [
                helper.make_node("Shape", ["x"], ["s"]),
                helper.make_node("Reshape", ["s", "column"], ["r"]),
                helper.make_node("Gather", ["r", "one"], ["g"], axis=0),
                helper.make_node("Cast", ["g"], ["y"], to=1),
            ],
            {"column": np.array([-1, 1], np.int64), "one": np.array([1], np.int64)},
        ),
        (
            [helper.make_node("CastLike", ["x", "e"], ["c"], saturate=0), helper.make_node("Cast", ["c"], ["y"], to=1)],
            {"e": np.zeros(1, ml_dtypes.float8_e4m3fn)},
        ),
    ],
    ids=["Gather of a reshaped Shape", "CastLike that does not saturate"],
)
def test_what_onnxscript_misreads_is_refused(nodes: list[Any], constants: dict[str, Any]) -> None:
    graph = model(nodes, ["n", 4, 6, 7], {"y": [None, None]}, constants, opset=19)
    with pytest.raises(ir.passes.PreconditionError, match=nodes[-2].op_type):
        FoldConstants()(graph)


def test_dropping_a_dead_constant_is_a_modification() -> None:
    graph = model([helper.make_node("Relu", ["x"], ["y"])], SHAPE, {"y": SHAPE}, {"dead": noise([3])})
    check(graph, FoldConstants(), ["Relu"], modified=True)
    assert not graph.graph.initializers


@pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.__name__)
def test_body_or_unknown_opset_is_refused_and_left_alone(kind: type[ir.passes.InPlacePass]) -> None:
    """A body reads what no input lists; and before opset 13 attributes stand where the rules look for inputs."""
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["n"])], "b", [], [helper.make_tensor_value_info("n", 1, None)]
    )
    with_body = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
    graphs = [model(with_body, SHAPE, {"y": SHAPE}, {"c": np.array(True)})]
    if kind.__name__ != "NameNodes":  # which asks no operator what it means
        graphs += [model([helper.make_node("Relu", ["x"], ["y"])], SHAPE, {"y": SHAPE}, opset=12)]
        graphs += [model([], SHAPE, {"x": SHAPE})]
        del graphs[-1].graph.opset_imports[""]
    for graph in graphs:
        before = ir.to_proto(graph)
        with pytest.raises(ir.passes.PreconditionError):
            kind()(graph)
        assert ir.to_proto(graph) == before


@pytest.mark.parametrize("kind", PASSES[:-1], ids=lambda kind: kind.__name__)
def test_nothing_to_do_changes_nothing(kind: type[ir.passes.InPlacePass]) -> None:
    """Not even dead nodes: what a pass says of itself decides whether the graph is checked again."""
    nodes = [helper.make_node("MaxPool", ["x"], ["y", ""], kernel_shape=[2, 2])]
    if kind is not FoldConstants:
        nodes.append(helper.make_node("Relu", ["x"], ["nobody"]))
    check(model(nodes, SHAPE, {"y": [None] * 4}), kind(), [node.op_type for node in nodes], modified=False)


def test_absolute_value_of_a_reckoned_dimension_stays() -> None:
    """onnxscript 0.7 takes what is reckoned from a shape for a dimension, which is never negative."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["d"], axis=0),
        helper.make_node("Add", ["d", "minus_three"], ["m"]),
        helper.make_node("Abs", ["m"], ["a"]),
        helper.make_node("Cast", ["a"], ["y"], to=1),
    ]
    constants = {"zero": np.array([0]), "minus_three": np.array([-3])}
    graph = model(nodes, ["n", 2], {"y": [1]}, constants)
    with pytest.raises(ir.passes.PreconditionError, match="Abs"):
        FoldConstants()(graph)


def test_target_of_another_rank_than_the_result_is_left_alone() -> None:
    """onnx's data propagation takes Unsqueeze(Shape(x)) for Shape(x), and the result's rank comes out wrong."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Unsqueeze", ["s", "zero"], ["u"]),
        helper.make_node("Gather", ["u", "first"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "first": np.array(0)}
    graph = model(nodes, ["n", 4], {"y": [None, None]}, constants)
    x = noise([3, 4])
    before = run(graph, x)
    assert not StaticReshape()(graph).modified
    assert_same(before, run(graph, x))


def test_constants_do_not_grow_without_limit() -> None:
    nodes = [helper.make_node("Expand", ["one", "many"], ["e"]), helper.make_node("Add", ["x", "e"], ["y"])]
    constants = {"one": np.float32(1), "many": np.array([5000, 5000])}
    graph = model(nodes, [1], {"y": [5000, 5000]}, constants)
    FoldConstants()(graph)
    assert ops(graph) == ["Expand", "Add"]
