from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from mbexport.graph.fuse_hard_sigmoid import FuseHardSigmoid
from mbexport.graph.fuse_hard_swish import FuseHardSwish
from tests.graphs import assert_same, model, ops, run

KNEES = np.linspace(-8, 8, 65, dtype=np.float32).reshape(1, 65)
THREE, SIX, ZERO, SIXTH = np.float32(3), np.float32(6), np.float32(0), np.float32(1 / 6)


def gate(
    *,
    add: Any = THREE,
    low: Any = ZERO,
    high: Any = SIX,
    scale: Any = SIXTH,
    op: str = "Mul",
    swap: bool = False,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
    swish: bool = False,
) -> Any:
    nodes = [
        helper.make_node("Add", ["add", "x"] if swap else ["x", "add"], ["a"]),
        helper.make_node("Clip", ["a", "low", "high"], ["c"]),
        helper.make_node(op, ["scale", "c"] if swap else ["c", "scale"], ["g" if swish else "y"]),
    ]
    if swish:
        nodes.append(helper.make_node("Mul", ["g", "x"] if swap else ["x", "g"], ["y"]))
    constants = {"add": add, "low": low, "high": high, "scale": scale}
    return model(nodes, [1, 65], dict.fromkeys(outputs, (1, 65)), constants, opset=opset)


def fused(graph: Any) -> list[str]:
    before = run(graph, KNEES)
    FuseHardSigmoid()(graph)
    FuseHardSwish()(graph)
    assert_same(before, run(graph, KNEES))
    return ops(graph)


@pytest.mark.parametrize("swap", [False, True])
def test_hard_sigmoid(swap: bool) -> None:
    assert fused(gate(swap=swap)) == ["HardSigmoid"]


def test_hard_sigmoid_by_division() -> None:
    assert fused(gate(op="Div", scale=SIX)) == ["HardSigmoid"]


def test_other_slopes_are_hard_sigmoids_too() -> None:
    assert fused(gate(add=np.float32(1), high=np.float32(4), scale=np.float32(0.25))) == ["HardSigmoid"]


@pytest.mark.parametrize("swap", [False, True])
def test_hard_swish(swap: bool) -> None:
    assert fused(gate(swish=True, swap=swap)) == ["HardSwish"]


def test_gate_read_twice_stays_beside_the_swish() -> None:
    assert sorted(fused(gate(swish=True, outputs=("y", "g")))) == ["HardSigmoid", "HardSwish"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": np.float32(0.166)},
        {"low": np.float32(-0.1)},
        {"high": np.float32(5)},
        {"add": np.array([[3.0, 2.0]], np.float32).repeat(65, 1)[:, :65]},
        {"op": "Div", "scale": SIXTH},
        {"outputs": ("y", "c")},
        {"outputs": ("y", "a")},
        {"high": np.float32(-6), "scale": np.float32(-1 / 6)},
    ],
    ids=str,
)
def test_nearly_a_hard_sigmoid_declines(wrong: dict[str, Any]) -> None:
    assert "HardSigmoid" not in fused(gate(**wrong))


def test_swish_with_another_slope_is_not_hard_swish() -> None:
    graph = gate(swish=True, add=np.float32(1), high=np.float32(4), scale=np.float32(0.25))
    assert fused(graph) == ["HardSigmoid", "Mul"]


def test_no_hard_swish_before_opset_14() -> None:
    assert fused(gate(swish=True, opset=13)) == ["HardSigmoid", "Mul"]


@pytest.mark.parametrize("dtype", [np.int32, np.float16, np.float64])
def test_gates_of_other_element_types_decline(dtype: Any) -> None:
    """Integers divide otherwise and have no HardSigmoid; the others would be rounded otherwise."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))),
        helper.make_node("Add", ["i", "three"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "six"], ["c"]),
        helper.make_node("Div", ["c", "six"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=1),
    ]
    constants = {"three": dtype(3), "zero": dtype(0), "six": dtype(6)}
    graph = model(nodes, [1, 65], {"y": [1, 65]}, constants)
    assert not FuseHardSigmoid()(graph).modified


def test_large_shift_declines() -> None:
    """x + 3e6 is exact where the gate is open; x / 3 + 1e6 is rounded to 1/16."""
    graph = gate(add=np.float32(3e6), high=np.float32(3), scale=np.float32(1 / 3))
    x = np.linspace(-3e6, -3e6 + 3, 65, dtype=np.float32).reshape(1, 65)
    before = run(graph, x)
    assert not FuseHardSigmoid()(graph).modified
    assert_same(before, run(graph, x))
