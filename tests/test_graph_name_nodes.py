"""What NameNodes must keep; the names themselves are tested with the guard."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from mbexport.graph.name_nodes import NameNodes
from tests.graphs import model, noise


def named(*nodes: Any, constants: dict[str, Any] | None = None) -> ir.Model:
    graph = model(nodes, [1, 2, 4, 4], {"y": [None] * 4}, constants)
    NameNodes()(graph)
    return graph


def test_input_that_may_be_left_out_keeps_its_default_though_nothing_reads_it() -> None:
    graph = model([helper.make_node("Relu", ["x"], ["y"])], [2], {"y": [2]}, {"option": noise([3])})
    graph.graph.inputs.append(graph.graph.initializers["option"])
    NameNodes()(graph)
    assert list(graph.graph.initializers) == ["option"]


def test_result_that_is_left_out_stays_so() -> None:
    """With a name it would be asked for."""
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["", "hidden"], name="lstm/op", hidden_size=2),
        helper.make_node("Neg", ["hidden"], ["y"], name="neg/op"),
    ]
    graph = model(nodes, [3, 1, 4], {"y": [1, 1, 2]}, {"w": noise([1, 8, 4]), "r": noise([1, 8, 2])})
    NameNodes()(graph)
    assert [value.name for value in graph.graph.node(0).outputs] == ["", "lstm/LSTM/1"]


@pytest.mark.parametrize("name", ["", "a", "a/b__7", "a/batchnorm/batchnorm/mul", "/mul", "graph/Relu", "y/Relu"])
def test_second_run_changes_nothing(name: str) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["c"], name=name)
    graph = named(node, helper.make_node("Relu", ["c"], ["y"], name=name), constants={"w": noise([3, 2, 1, 1])})
    assert not NameNodes()(graph).modified


def test_same_names_given_twice_are_noticed() -> None:
    graph = named(helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"]))
    graph.graph.node(0).name = graph.graph.node(1).name
    with pytest.raises(ir.passes.PostconditionError, match="graph/Neg"):
        NameNodes().ensures(graph)


def test_nodes_that_nothing_reads_are_dropped() -> None:
    graph = named(
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Add", ["x", "c"], ["dead"]),
        constants={"c": np.float32(1)},
    )
    assert graph.graph.num_nodes() == 1
    assert not graph.graph.initializers
