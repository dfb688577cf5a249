from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from mbexport.graph.fold_affine import FoldAffine
from mbexport.graph.fold_constants import FoldConstants
from mbexport.graph.fold_padding import FoldPadding
from mbexport.graph.static_reshape import StaticReshape
from tests.graphs import assert_same, model, noise, ops, run

SHAPE = [2, 4, 6, 7]


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
