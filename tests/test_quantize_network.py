"""What quantisation takes for a product, and how classifiers become Gemm."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mbexport.errors import ArtifactError, InputError
from mbexport.quantize.network import Network
from mbexport.quantize.normal_form import with_gemm
from mbexport.runtimes.ort_calls import run_unoptimized
from tests.quantizing import CLASSES, Writer, mobile, operators, pictures


def assert_same_answers(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    onnx.checker.check_model(other, full_check=True)
    shown = {"x": pictures(5)}
    before, after = run_unoptimized(model, shown), run_unoptimized(other, shown)
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top", ["Gemm", "MatMul", "Conv", "none"])
@pytest.mark.parametrize("gate", [True, False])
def test_classifiers_become_gemm(top: str, gate: bool) -> None:
    model = mobile(top=top, gate=gate)
    before = model.SerializeToString()
    written = with_gemm(model)
    assert model.SerializeToString() == before
    assert_same_answers(model, written)
    found = operators(written)
    assert found["Gemm"] == {"Gemm": 1, "MatMul": 1, "Conv": 2, "none": 0}[top]
    assert found["MatMul"] == 0
    assert len(Network(model).products) == found["Conv"] + found["Gemm"]


def test_the_gate_of_a_squeeze_excite_stays_a_convolution() -> None:
    """Its map is not flattened, but multiplied with the one that was pooled."""
    assert {"one/reduce", "one/excite"} <= set(Network(mobile(top="Conv")).products)
    kept = Network(mobile(top="Conv")).makers
    assert (kept["one/reduce"].op_type, kept["wide"].op_type, kept["logits"].op_type) == ("Conv", "Gemm", "Gemm")


def test_a_map_that_is_an_output_stays_a_map() -> None:
    write = Writer()
    write.add("GlobalAveragePool", [write.conv("x", "first", (8, 3, 3))], "pooled")
    write.constants["flat_shape"] = np.array([-1, 6])
    write.add("Reshape", [write.conv("pooled", "map", (6, 8, 1)), "flat_shape"], "flat")
    model = write.model({"flat": 2, "map": 4})
    assert_same_answers(model, with_gemm(model))


def head(write: Writer) -> str:
    write.conv("x", "first", (8, 3, 3))
    return write.add("Flatten", [write.add("GlobalAveragePool", ["first"], "pooled")], "flat")


def test_the_vector_may_stand_first() -> None:
    write = Writer()
    gemm_of = write.dense(head(write), "logits", 8, CLASSES)
    gemm = write.nodes.pop()
    assert gemm_of == "logits"
    write.add("MatMul", gemm.input[:2], "product")
    write.add("Add", [gemm.input[2], "product"], "logits")
    model = write.model({"logits": 2})
    assert operators(with_gemm(model))["Gemm"] == 1
    assert_same_answers(model, with_gemm(model))


@pytest.mark.parametrize("why", ["no addition", "read twice", "an output", "a row for each picture", "two products"])
def test_what_is_no_gemm_stays(why: str) -> None:
    write = Writer()
    write.dense(head(write), "logits", 8, CLASSES)
    gemm = write.nodes.pop()
    outputs = {"logits": 2}
    product = "logits" if why == "no addition" else "product"
    write.add("MatMul", gemm.input[:2], product)
    if why == "read twice":
        write.add("Add", [write.add("Add", [product, gemm.input[2]], "sum"), product], "logits")
    elif why == "an output":
        write.add("Add", [product, gemm.input[2]], "logits")
        outputs = {"logits": 2, "product": 2}
    elif why == "a row for each picture":
        write.constants["row"] = np.ones((5, 1), np.float32)
        write.add("Add", [product, "row"], "logits")
    elif why == "two products":
        write.add("Add", [product, write.add("MatMul", gemm.input[:2], "other")], "logits")
    model = write.model(outputs)
    assert operators(with_gemm(model))["MatMul"] >= 1
    assert_same_answers(model, with_gemm(model))


def test_two_heads_each_become_gemm() -> None:
    """And a hidden layer between, as users' own classifiers have."""
    write = Writer()
    flat = head(write)
    for name, width in (("kind", 3), ("place", 4)):
        hidden = write.dense(flat, f"{name}/hidden", 8, 6)
        write.dense(write.active(hidden, "Relu", f"{name}/active"), name, 6, width)
    nodes = []
    for node in write.nodes:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        product = helper.make_node("MatMul", node.input[:2], [f"{node.name}/product"], name=f"{node.name}/product")
        nodes += [product, helper.make_node("Add", [product.output[0], node.input[2]], node.output, name=node.name)]
    write.nodes = nodes
    model = write.model({"kind": 2, "place": 2})
    assert operators(with_gemm(model)) == {"Conv": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 4, "Relu": 2}
    assert_same_answers(model, with_gemm(model))


@pytest.mark.parametrize(
    ("attributes", "is_product"),
    [({}, True), ({"transB": 1}, True), ({"alpha": 2.0}, False), ({"beta": 0.5}, False), ({"transA": 1}, False)],
)
def test_which_gemm_is_a_product(attributes: dict[str, Any], is_product: bool) -> None:
    write = Writer()
    flat = head(write)
    matrix = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    write.constants |= {"matrix": matrix, "bias": np.arange(8, dtype=np.float32)}
    write.add("Gemm", [flat, "matrix", "bias"], "logits", **attributes)
    products = Network(write.model({"logits": 2})).products
    assert ("logits" in products) == is_product
    if is_product:
        product = products["logits"]
        right = matrix if attributes else matrix.T  # outputs first
        assert np.array_equal(product.kernel[:, :, 0, 0], right)
        assert np.array_equal(product.stored(product.kernel), matrix)
        assert product.is_transposed == (not attributes)


def test_convolutions() -> None:
    products = Network(mobile()).products
    assert list(products)[:4] == ["stem", "one/expand", "one/depthwise", "one/reduce"]
    assert [products[name].is_depthwise for name in ("stem", "one/depthwise")] == [False, True]
    assert products["stem"].integers("strides", [1, 1]) == [2, 2]
    assert products["stem"].integers("dilations", [1, 1]) == [1, 1]


def test_a_convolution_that_pads_itself_stays_float32() -> None:
    write = Writer()
    write.conv("x", "first", (8, 3, 3))
    write.constants["own/kernel"] = write.constants["first/kernel"][:, :3]
    write.add("Conv", ["x", "own/kernel"], "own", auto_pad="SAME_UPPER")
    write.add("Add", ["first", "own"], "sum")
    assert list(Network(write.model({"sum": 4})).products) == ["first"]


def test_by_input_repeats_a_scale_for_the_outputs_of_each_group() -> None:
    product = Network(mobile()).products["one/depthwise"]
    scale = np.arange(16, dtype=np.float32)
    assert np.array_equal(product.by_input(scale), scale)
    assert product.by_input(np.float32(2)).tolist() == [2.0] * 16  # type: ignore[arg-type]
    assert Network(mobile()).products["stem"].by_input(np.array(3, np.float32)).tolist() == [3.0] * 8


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [
        ("Relu", (0, np.inf)),
        ("Clip low six", (0, 6)),
        ("Clip - six", (-np.inf, 6)),
        ("Clip minus", (np.float32(-0.4), np.inf)),
    ],
)
def test_bounds_of_activations(kind: str, bounds: tuple[float, float]) -> None:
    network = Network(mobile(kind))
    assert network.clips_at(network.makers["stem/active"]) == bounds


@pytest.mark.parametrize("name", ["one/depthwise/kernel", "logits/bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(name: str, value: float) -> None:
    model = mobile()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    with pytest.raises(ArtifactError, match=f"{name} holds numbers that are not finite"):
        Network(model)


def test_a_graph_without_products_is_refused() -> None:
    write = Writer()
    write.active("x", "Relu", "y")
    with pytest.raises(InputError, match="no convolution"):
        Network(write.model({"y": 4}))


def test_a_node_with_a_graph_of_its_own_is_refused() -> None:
    write = Writer()
    write.conv("x", "first", (8, 3, 3))
    write.constants["yes"] = np.array(True)
    value = helper.make_empty_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Identity", ["first"], [f"{name}/out"])], name, [], [value(f"{name}/out")]
        )
        for name in ("then", "else")
    }
    write.add("If", ["yes"], "y", **branches)
    with pytest.raises(InputError, match=r"y \(If\) holds a graph of its own"):
        Network(write.model({"y": 4}))
