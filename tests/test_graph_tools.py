from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

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
