from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, checker, helper, numpy_helper
from onnx_ir.passes.common import NameFixPass

from mbexport.accuracy.trace import trace_of
from mbexport.graph import tools
from mbexport.graph.guard import run_model

SIDE = 40  # 1600 elements: large


def model() -> ir.Model:
    """Large constants of every kind: hidden, read by a body, overridable, an output, of another type; a small one."""
    rng = np.random.default_rng(0)
    names = ["plain", "overridable", "output", "captured", "double"]
    arrays = {name: rng.normal(size=(SIDE, SIDE)).astype(np.float32) for name in names}
    arrays["double"] = arrays["double"].astype(np.float64)
    arrays["small"] = np.array([2.0], np.float32)
    grid = helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIDE, SIDE])
    branch = helper.make_graph(
        [helper.make_node("Add", ["h", "captured"], ["branch"])],
        "branch",
        [],
        [helper.make_tensor_value_info("branch", TensorProto.FLOAT, [SIDE, SIDE])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "plain"], ["a"]),
        helper.make_node("Add", ["a", "overridable"], ["b"]),
        helper.make_node("Add", ["b", "output"], ["c"]),
        helper.make_node("Cast", ["double"], ["d"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["c", "small"], ["e"]),
        helper.make_node("Add", ["e", "d"], ["h"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    arrays["yes"] = np.array(True)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in ("y", "output")]
    overridable = helper.make_tensor_value_info("overridable", TensorProto.FLOAT, [SIDE, SIDE])
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "large", [grid, overridable], outputs, initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


def test_a_light_model_answers_as_the_whole() -> None:
    import onnxruntime

    whole = model()
    feeds = {"x": np.random.default_rng(1).normal(size=(SIDE, SIDE)).astype(np.float32)}
    data = ir.to_proto(whole).SerializeToString()
    expected = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
    found = run_model(whole, feeds)
    np.testing.assert_allclose(found["y"], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["output"], expected[1])


def test_a_light_model_leaves_the_model_as_it_was() -> None:
    whole = model()
    before = ir.to_proto(whole)
    proto, constants = tools.light_proto(whole)
    assert sorted(constants) == ["captured", "plain"]
    assert {tensor.name for tensor in proto.graph.initializer} == {"overridable", "output", "double", "small", "yes"}
    assert ir.to_proto(whole) == before
    assert not whole.graph.initializers["plain"].is_graph_input()


@pytest.mark.parametrize("name", ["plain", "double", "small"])
def test_contents_differ_where_a_constant_does(name: str) -> None:
    whole = model()
    before = tools.Contents(whole)
    assert tools.Contents(whole) == before
    value = whole.graph.initializers[name]
    value.const_value = ir.tensor(value.const_value.numpy() + 1, name=name)  # type: ignore[union-attr]
    assert tools.Contents(whole) != before


def test_a_model_comes_back_as_it_was() -> None:
    whole = model()
    before, kept = ir.to_proto(whole), tools.Contents(whole)
    for node in list(whole.graph):
        node.op_type = "Identity"
    for value in whole.graph.initializers.values():
        value.const_value = ir.tensor(np.zeros(1, np.float32), name=value.name)
    whole.graph.inputs.clear()
    for back in (kept.restored(), kept.restored()):
        assert ir.to_proto(back) == before
        assert tools.Contents(back) == kept


def clashing() -> ir.Model:
    """A pass added the initializers ``y`` and ``y_1`` to a graph whose result is called ``y``."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "clashing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    relu = model.graph.node(0)
    added = [tools.add_initializer(model.graph, "y", np.full(1, number, np.float32)) for number in (1, 2)]
    summed = tools.new_node(relu, "Add", added)
    relu.replace_input_with(0, summed)
    return model


def test_new_initializers_get_names_that_no_result_has() -> None:
    model = clashing()
    tools.finish(model, modified=True)
    proto = ir.to_proto(model)
    checker.check_model(proto, full_check=True)
    assert [output.name for output in proto.graph.output] == ["y"]
    assert run_model(model, {"x": np.zeros(1, np.float32)})["y"] == 3


def test_onnx_irs_own_pass_still_fails_on_such_names() -> None:
    """When it no longer does, ``tools._part_initializers`` can go."""
    with pytest.raises(ValueError, match="already exists"):
        NameFixPass()(clashing())


def test_results_of_any_type_can_be_looked_at() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Equal", ["whole", "whole"], ["same"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["x", "largest"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "types", ends[:1], ends[1:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    held = run_model(model, {"x": np.array([[1, 2]], np.float32)}, expose=True)
    assert {name: array.dtype.name for name, array in held.items()} == {
        "sizes": "int64",
        "whole": "int32",
        "same": "bool",
        "largest": "float32",
        "y": "float32",
    }
    assert set(trace_of(held)) == {"y"}
