from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from mbexport.graph.sink_transposes import SinkTransposes
from tests.graphs import assert_same, model, noise, ops, run

LAST = [0, 2, 3, 1]
FIRST = [0, 3, 1, 2]


def sandwich(*middle: Any, constants: dict[str, Any] | None = None) -> ir.Model:
    """x (NCHW) -> Transpose to NHWC -> ``middle`` from "a" to "b" -> Transpose back -> y."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=LAST),
        *middle,
        helper.make_node("Transpose", ["b"], ["y"], perm=FIRST),
    ]
    return model(nodes, [2, 3, 4, 5], {"y": [None] * 4}, constants)


def check(graph: ir.Model, transposes: int) -> ir.Model:
    x = noise([2, 3, 4, 5])
    before = run(graph, x)
    SinkTransposes()(graph)
    assert_same(before, run(graph, x))
    assert ops(graph).count("Transpose") == transposes
    return graph


@pytest.mark.parametrize("op", ["Relu", "HardSwish", "Sigmoid", "Neg"])
def test_unary(op: str) -> None:
    check(sandwich(helper.make_node(op, ["a"], ["b"])), 0)


def test_clip_keeps_its_bounds() -> None:
    graph = sandwich(
        helper.make_node("Clip", ["a", "low", "high"], ["b"]), constants={"low": np.float32(-1), "high": np.float32(2)}
    )
    check(graph, 0)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 3), (4, 5, 3), (4, 1, 1), (1, 4, 5, 3), (2, 1, 1, 3)], ids=str)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_broadcast_constants(op: str, shape: tuple[int, ...]) -> None:
    constant = np.abs(noise(shape, 1)) + np.float32(0.5)
    check(sandwich(helper.make_node(op, ["a", "c"], ["b"]), constants={"c": constant}), 0)
    check(sandwich(helper.make_node(op, ["c", "a"], ["b"]), constants={"c": constant}), 0)


def test_constant_of_higher_rank_declines() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["a"], perm=LAST), helper.make_node("Add", ["a", "c"], ["y"])]
    graph = model(nodes, [2, 3, 4, 5], {"y": [6, 2, 4, 5, 3]}, {"c": noise([6, 1, 1, 1, 1])})
    check(graph, 1)


def test_both_inputs_transposed_alike() -> None:
    check(sandwich(helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Add", ["a", "r"], ["b"])), 0)


def test_inputs_transposed_differently_decline() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 1, 3, 2]),
        helper.make_node("Transpose", ["x"], ["b"], perm=[1, 0, 3, 2]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = model(nodes, [3, 3, 4, 5], {"y": [3, 3, 5, 4]})
    x = noise([3, 3, 4, 5])
    before = run(graph, x)
    SinkTransposes()(graph)
    assert_same(before, run(graph, x))
    assert ops(graph) == ["Transpose", "Transpose", "Add"]


@pytest.mark.parametrize("axes", [[1, 2], [-3, -2], [3], [0, 3]], ids=str)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduce(axes: list[int], keepdims: int) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=LAST),
        helper.make_node("ReduceMean", ["a"], ["b" if keepdims else "y"], axes=axes, keepdims=keepdims),
    ]
    if keepdims:
        nodes.append(helper.make_node("Transpose", ["b"], ["y"], perm=FIRST))
    rank = 4 if keepdims else 4 - len(axes)
    graph = model(nodes, [2, 3, 4, 5], {"y": [None] * rank})
    x = noise([2, 3, 4, 5])
    before = run(graph, x)
    SinkTransposes()(graph)
    assert_same(before, run(graph, x))
    (reduce,) = (node for node in graph.graph if node.op_type == "ReduceMean")
    assert reduce.inputs[0] is graph.graph.inputs[0]  # the Transpose has gone past it


@pytest.mark.parametrize("perm", list(itertools.permutations(range(4))), ids=str)
@pytest.mark.parametrize("axis", range(4))
def test_reduce_that_drops_a_dimension_leaves_one_transpose_of_the_others(perm: tuple[int, ...], axis: int) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=perm),
        helper.make_node("ReduceMax", ["a"], ["b"], axes=[axis], keepdims=0),
        helper.make_node("Transpose", ["b"], ["y"], perm=[1, 2, 0]),
    ]
    graph = model(nodes, [2, 3, 4, 5], {"y": [None] * 3})
    x = noise([2, 3, 4, 5])
    before = run(graph, x)
    assert SinkTransposes()(graph).modified
    assert_same(before, run(graph, x))


def test_reduce_with_axes_as_input() -> None:
    middle = helper.make_node("ReduceSum", ["a", "axes"], ["b"], keepdims=1)
    check(sandwich(middle, constants={"axes": np.array([1, 2], np.int64)}), 0)


def test_pad() -> None:
    pads = np.array([0, 1, 2, 0, 0, 3, 4, 5], np.int64)
    check(sandwich(helper.make_node("Pad", ["a", "pads"], ["b"]), constants={"pads": pads}), 0)


def test_concat() -> None:
    middle = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Concat", ["a", "r"], ["b"], axis=-1)]
    check(sandwich(*middle), 0)


def test_transposed_value_read_twice_and_an_output() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=LAST),
        helper.make_node("Relu", ["a"], ["y"]),
        helper.make_node("Transpose", ["y"], ["z"], perm=FIRST),
    ]
    check(model(nodes, [2, 3, 4, 5], {"y": [2, 4, 5, 3], "z": [2, 3, 4, 5]}), 1)


def test_double_transpose_from_input_to_output_keeps_a_node() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=LAST),
        helper.make_node("Transpose", ["a"], ["y"], perm=FIRST),
    ]
    check(model(nodes, [2, 3, 4, 5], {"y": [2, 3, 4, 5]}), 1)


@pytest.mark.parametrize(("spatial", "expected"), [((1, 1), 0), ((1, 5), 1)], ids=str)
def test_reshape_after_pooling(spatial: tuple[int, int], expected: int) -> None:
    """Only where every moved dimension but one has size 1 is the memory order the same."""
    height, width = spatial
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=LAST),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    graph = model(
        nodes, [2, 3, height, width], {"y": [2, 3 * width]}, {"shape": np.array([0, 3 * width * height], np.int64)}
    )
    x = noise([2, 3, height, width])
    before = run(graph, x)
    SinkTransposes()(graph)
    assert_same(before, run(graph, x))
    assert ops(graph).count("Transpose") == expected


CHAIN = st.lists(
    st.sampled_from(["Relu", "AddChannel", "MulScalar", "AddSelf", "Pad", "ReduceKeep", "There", "Back"]), max_size=8
)


def link(step: str, source: str, result: str, perm: list[int]) -> Any:
    inputs = {"AddChannel": ["channel"], "MulScalar": ["scalar"], "AddSelf": [source], "Pad": ["pads"]}
    attributes: dict[str, dict[str, Any]] = {
        "ReduceKeep": {"axes": [2], "keepdims": 1},
        "There": {"perm": perm},
        "Back": {"perm": FIRST},
    }
    ops = {
        "AddChannel": "Add",
        "MulScalar": "Mul",
        "AddSelf": "Add",
        "ReduceKeep": "ReduceMax",
        "There": "Transpose",
        "Back": "Transpose",
    }
    return helper.make_node(ops.get(step, step), [source, *inputs.get(step, [])], [result], **attributes.get(step, {}))


@settings(max_examples=60, deadline=None)
@given(chain=CHAIN, perm=st.permutations(range(4)), seed=st.integers(0, 99))
def test_random_chains_keep_their_result(chain: list[str], perm: list[int], seed: int) -> None:
    constants = {
        "channel": noise([1, 1, 1, 3], seed),
        "scalar": np.float32(1.5),
        "pads": np.array([0, 1, 0, 0, 0, 0, 2, 0], np.int64),
    }
    nodes, last = [helper.make_node("Transpose", ["x"], ["v0"], perm=LAST)], "v0"
    channels_last = True
    for index, step in enumerate(chain, 1):
        channels_last = channels_last and step not in {"ReduceKeep", "There", "Back"}
        nodes.append(link(step if channels_last or step != "AddChannel" else "Relu", last, f"v{index}", perm))
        last = f"v{index}"
    nodes.append(helper.make_node("Neg", [last], ["y"]))
    graph = model(nodes, [2, 3, 4, 5], {"y": [None] * 4}, constants)
    x = noise([2, 3, 4, 5], seed + 1)
    before = run(graph, x)
    transposes = ops(graph).count("Transpose")
    modified = SinkTransposes()(graph).modified
    assert_same(before, run(graph, x))
    assert (ops(graph).count("Transpose") < transposes) is modified


def test_graph_that_would_get_no_fewer_transposes_is_left_as_it_is() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=LAST),
        helper.make_node("Relu", ["a"], ["y"]),
        helper.make_node("Neg", ["a"], ["z"]),
        helper.make_node("Softmax", ["a"], ["u"]),
    ]
    graph = model(nodes, [2, 3, 4, 5], {"y": [2, 4, 5, 3], "z": [2, 4, 5, 3], "u": [2, 4, 5, 3]})
    before = ir.to_proto(graph)
    assert not SinkTransposes()(graph).modified
    assert ir.to_proto(graph) == before
