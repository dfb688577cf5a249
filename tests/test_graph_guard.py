from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.errors import EngineError
from mbexport.graph import PassStep, simplify
from mbexport.graph.guard import census, run_model
from mbexport.graph.name_nodes import NameNodes
from tests.graphs import model, noise

FEEDS = {"x": noise([2, 4])}
LIMIT_DB = 100.0


class ScaleBias(ir.passes.InPlacePass):
    """A wrong pass: one constant off by a thousandth."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        value = model.graph.initializers["bias"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.001), name="bias")  # type: ignore[union-attr]
        return ir.passes.PassResult(model, modified=True)


class Crash(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        raise ValueError("does not apply")


class Unloadable(ir.passes.InPlacePass):
    """A wrong pass whose graph no runtime accepts."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        next(iter(model.graph)).op_type = "NoSuchOperator"
        return ir.passes.PassResult(model, modified=True)


def small() -> Any:
    nodes = [helper.make_node("Add", ["x", "bias"], ["a"], name="dense/add__7"), helper.make_node("Relu", ["a"], ["y"])]
    return ir.to_proto(model(nodes, ["batch", 4], {"y": ["batch", 4]}, {"bias": noise([4], 1)}))


def simplified(graph_pass: ir.passes.InPlacePass) -> Any:
    return simplify(small(), FEEDS, limit_db=LIMIT_DB, passes=[graph_pass])


class Liar(ir.passes.InPlacePass):
    """Says that it changed nothing."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        next(iter(model.graph)).op_type = "Sub"
        return ir.passes.PassResult(model, modified=False)


class Undecided(Liar):
    """Declines after it has begun."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        super().call(model)
        raise ir.passes.PreconditionError("not like this")


@pytest.mark.parametrize("untrue", [Liar(), Undecided()])
def test_a_pass_that_says_it_changed_nothing_changes_nothing(untrue: ir.passes.InPlacePass) -> None:
    graph, report = simplified(untrue)
    assert not report.passes[0].modified
    assert ir.to_proto(graph).graph == small().graph


@pytest.mark.parametrize(
    ("wrong", "reason"), [(ScaleBias(), "SQNR"), (Crash(), "does not apply"), (Unloadable(), "NoSuchOperator")]
)
def test_wrong_pass_is_rolled_back_and_named(wrong: ir.passes.InPlacePass, reason: str) -> None:
    graph, report = simplified(wrong)
    (entry,) = report.passes
    assert entry.name == type(wrong).__name__
    assert entry.modified is False
    assert reason in (entry.skipped or "")
    before = run_model(ir.from_proto(small()), FEEDS)
    np.testing.assert_array_equal(run_model(graph, FEEDS)["y"], before["y"])


def test_rounding_passes_and_is_reported() -> None:
    class Nudge(ScaleBias):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            value = model.graph.initializers["bias"]
            value.const_value = ir.tensor(np.nextafter(value.const_value.numpy(), np.float32(9)), name="bias")  # type: ignore[union-attr]
            return ir.passes.PassResult(model, modified=True)

    _, report = simplified(Nudge())
    assert report.passes[0].modified
    assert report.passes[0].skipped is None
    assert 120 < (report.passes[0].sqnr_db or 0) < 180


def test_logits_are_compared_behind_a_softmax() -> None:
    """A fault in a class of probability 1e-9 is invisible in the probabilities and plain in the logits."""
    nodes = [helper.make_node("Add", ["x", "bias"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    proto = ir.to_proto(model(nodes, [1, 3], {"y": [1, 3]}, {"bias": np.array([20, 0, -20], np.float32)}))

    class ShiftLast(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            model.graph.initializers["bias"].const_value = ir.tensor(np.array([20, 0, -20.01], np.float32), name="bias")
            return ir.passes.PassResult(model, modified=True)

    _, report = simplify(proto, {"x": np.zeros((1, 3), np.float32)}, limit_db=LIMIT_DB, passes=[ShiftLast()])
    assert report.passes[0].skipped is not None


def test_refused_graph_is_an_engine_error() -> None:
    proto = small()
    proto.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(EngineError, match="NoSuchOperator"):
        run_model(ir.from_proto(proto), FEEDS)


def test_names_come_from_layers_and_not_from_the_converter() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w__12"], ["q__9"], name="block/conv__9"),
        helper.make_node("Relu", ["q__9"], ["y"], name="block_relu/Relu__3"),
    ]
    graph = model(nodes, [1, 2, 4, 4], {"y": [1, 3, 4, 4]}, {"w__12": noise([3, 2, 1, 1])})
    NameNodes()(graph)
    assert [node.name for node in graph.graph] == ["block/Conv", "block_relu/Relu"]
    assert list(graph.graph.initializers) == ["block/kernel"]
    assert [value.name for value in graph.graph.outputs] == ["y"]


def test_order_does_not_depend_on_the_converters_order() -> None:
    def ordered(first: str, second: str) -> list[str | None]:
        branches = {name: helper.make_node(name, ["x"], [name.lower()], name=f"{name}/op") for name in ("Relu", "Neg")}
        nodes = [branches[first], branches[second], helper.make_node("Add", ["relu", "neg"], ["y"], name="sum/op")]
        graph = model(nodes, [2, 4], {"y": [2, 4]})
        NameNodes()(graph)
        return [node.name for node in graph.graph]

    assert ordered("Relu", "Neg") == ordered("Neg", "Relu")


def test_logits_are_compared_even_where_the_pass_replaced_the_softmax() -> None:
    nodes = [helper.make_node("Add", ["x", "bias"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    proto = ir.to_proto(model(nodes, [1, 3], {"y": [1, 3]}, {"bias": np.array([20, 0, -20], np.float32)}))

    class ShiftAndHide(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            model.graph.initializers["bias"].const_value = ir.tensor(np.array([20, 0, -20.01], np.float32), name="bias")
            softmax = model.graph.outputs[0]
            softmax.name = "hidden"
            node = ir.node("Identity", [softmax])
            node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", softmax.type, softmax.shape
            model.graph.append(node)
            model.graph.outputs[0] = node.outputs[0]
            return ir.passes.PassResult(model, modified=True)

    _, report = simplify(proto, {"x": np.zeros((1, 3), np.float32)}, limit_db=LIMIT_DB, passes=[ShiftAndHide()])
    assert "SQNR" in (report.passes[0].skipped or "")


class WithoutMessage(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        raise AssertionError


class RenameOutput(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model.graph.outputs[0].name = "z"
        return ir.passes.PassResult(model, modified=True)


class FixBatch(ir.passes.InPlacePass):
    """Right on the probes, which are two, and on nothing else."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model.graph.inputs[0].shape = ir.Shape([2, 4])
        return ir.passes.PassResult(model, modified=True)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (WithoutMessage(), "AssertionError"),
        (RenameOutput(), "the outputs were y FLOAT and became z FLOAT"),
        (FixBatch(), "the inputs were x FLOAT[batch,4] and became x FLOAT[2,4]"),
    ],
)
def test_whatever_a_pass_does_wrong_is_rolled_back(wrong: ir.passes.InPlacePass, reason: str) -> None:
    graph, report = simplified(wrong)
    assert report.passes[0].skipped == reason
    assert [output.name for output in graph.graph.outputs] == ["y"]
    assert str(graph.graph.inputs[0].shape) == "[batch,4]"


def test_lack_of_memory_is_not_the_passes_fault() -> None:
    class Hungry(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            raise MemoryError

    with pytest.raises(MemoryError):
        simplified(Hungry())


class DropRelu(ir.passes.InPlacePass):
    """A wrong pass that makes the graph smaller."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        add, relu = model.graph
        relu.outputs[0].name, add.outputs[0].name = "a", "y"
        add.outputs[0].type, add.outputs[0].shape = relu.outputs[0].type, relu.outputs[0].shape
        model.graph.outputs[0] = add.outputs[0]
        model.graph.remove(relu, safe=True)
        return ir.passes.PassResult(model, modified=True)


def test_whoever_observes_sees_what_a_wrong_pass_had_made() -> None:
    steps: list[PassStep] = []
    graph, _ = simplify(small(), FEEDS, limit_db=LIMIT_DB, passes=[DropRelu(), Crash()], observe=steps.append)
    moved, crashed = steps
    assert (moved.number, moved.total, crashed.number) == (1, 2, 2)
    assert moved.ops_before == crashed.ops_before == {"Add": 1, "Relu": 1}
    assert moved.ops_after == {"Add": 1}
    assert moved.ops == {"Add": 1, "Relu": 1} == census(graph)
    assert moved.error is None
    assert isinstance(crashed.error, ValueError)
    assert crashed.error.__traceback__ is not None


def test_whoever_observes_sees_what_a_right_pass_made() -> None:
    class Twice(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            add = model.graph.node(0)
            again = ir.node("Relu", [add.outputs[0]])
            model.graph.insert_after(add, again)
            model.graph.node(2).replace_input_with(0, again.outputs[0])
            return ir.passes.PassResult(model, modified=True)

    steps: list[PassStep] = []
    simplify(small(), FEEDS, limit_db=LIMIT_DB, passes=[Twice()], observe=steps.append)
    assert steps[0].report.modified
    assert steps[0].report.sqnr_db is None
    assert steps[0].ops == steps[0].ops_after == {"Relu": 2, "Add": 1}


def test_naming_gives_each_result_a_name_of_its_own() -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["p", "q"], name="layer/split", axis=1),
        helper.make_node("Concat", ["q", "p"], ["y"], name="layer/concat", axis=1),
    ]
    graph = model(nodes, [2, 4], {"y": [2, 4]}, {"sizes": np.array([1, 3], np.int64)})
    before = run_model(graph, FEEDS)
    NameNodes()(graph)
    np.testing.assert_array_equal(run_model(graph, FEEDS)["y"], before["y"])


def test_naming_swaps_names_and_keeps_constants_that_are_outputs() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "b/mul"], ["m"], name="a/op"),
        helper.make_node("Mul", ["m", "a/mul"], ["y"], name="b/op"),
    ]
    constants = {"b/mul": np.array([2.0], np.float32), "a/mul": np.array([3.0], np.float32), "c": noise([3])}
    graph = model(nodes, [2, 4], {"y": [2, 4], "c": [3]}, constants)
    before = run_model(graph, FEEDS)
    NameNodes()(graph)
    after = run_model(graph, FEEDS)
    assert list(graph.graph.initializers) == ["a/mul", "b/mul", "c"]
    assert graph.graph.initializers["a/mul"].const_value.numpy()[0] == 2.0  # type: ignore[union-attr]
    for name in ("y", "c"):
        np.testing.assert_array_equal(after[name], before[name])


def test_naming_declines_graphs_with_bodies() -> None:
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["n"])], "b", [], [helper.make_tensor_value_info("n", 1, None)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    graph = model([node], [2, 4], {"y": [2, 4]}, {"c": np.array(True)})
    with pytest.raises(ir.passes.PreconditionError, match="If"):
        NameNodes()(graph)


def test_a_precondition_that_does_not_hold_is_no_rollback() -> None:
    class Choosy(ir.passes.InPlacePass):
        def requires(self, model: ir.Model) -> None:
            raise ir.passes.PreconditionError("the graph has bodies")

        def call(self, model: ir.Model) -> ir.passes.PassResult:
            raise AssertionError

    _, report = simplified(Choosy())
    assert report.passes[0].skipped is None
    assert report.passes[0].declined == "the graph has bodies"


def test_logits_are_compared_along_the_softmaxs_own_axis() -> None:
    """Over the channels, as a segmentation network ends: centring over the width would hide a rare class."""
    nodes = [helper.make_node("Add", ["x", "bias"], ["a"]), helper.make_node("Softmax", ["a"], ["y"], axis=1)]
    bias = np.array([20, 0, -20], np.float32).reshape(3, 1, 1)
    proto = ir.to_proto(model(nodes, [1, 3, 2, 4], {"y": [1, 3, 2, 4]}, {"bias": bias}))

    class ShiftLast(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            shifted = bias + np.array([0, 0, 0.01], np.float32).reshape(3, 1, 1)
            model.graph.initializers["bias"].const_value = ir.tensor(shifted, name="bias")
            return ir.passes.PassResult(model, modified=True)

    _, report = simplify(proto, {"x": np.zeros((1, 3, 2, 4), np.float32)}, limit_db=LIMIT_DB, passes=[ShiftLast()])
    assert "SQNR" in (report.passes[0].skipped or "")


@pytest.mark.parametrize("broken", [False, True])
def test_labels_are_compared_as_they_are(broken: bool) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], keepdims=0, axis=1),
        helper.make_node("Gather", ["words", "i"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "labels",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["batch"])],
        [numpy_helper.from_array(np.array(["cat", "cow", "dog", "eel"], object), "words")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    class Rename(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            if broken:
                model.graph.initializers["words"].const_value = ir.StringTensor(
                    np.array([b"a", b"b", b"c", b"d"], object), shape=ir.Shape([4]), name="words"
                )
            return ir.passes.PassResult(model, modified=True)

    _, report = simplify(proto, FEEDS, limit_db=LIMIT_DB, passes=[Rename()])
    assert report.passes[0].modified is not broken
    assert report.passes[0].skipped == ("y: other values" if broken else None)
