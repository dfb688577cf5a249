from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.accuracy.precisions import ROUNDINGS
from mbexport.accuracy.rounding import precision_floor_db, rounded
from mbexport.artifact import read_reference
from mbexport.compare import centred_log, sqnr_db
from mbexport.manifest import OutputContract
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.runtimes.ort_calls import import_onnxruntime
from tests.tiny import TinyNetwork, pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.thresholds import Precision

    Floats = NDArray[Any]

PROBABILITIES = [OutputContract(name="probabilities", shape=[None, 5], kind="probabilities")]


def spread(count: int = 4096) -> NDArray[np.float32]:
    """Numbers of both signs from 1e-4 to 1e4, none of them half way between two of a narrower type."""
    rng = np.random.default_rng(0)
    return (rng.choice([-1, 1], count) * 10 ** rng.uniform(-4, 4, count)).astype(np.float32)


def significant_bits(values: Floats, bits: int) -> Floats:
    """Rounded to so many significant bits, in float64."""
    mantissas, exponents = np.frexp(values.astype(np.float64))
    return np.asarray(np.ldexp(np.rint(mantissas * 2**bits), exponents - bits))


def eight_bits(values: Floats, axes: tuple[int, ...] | None = None, *, symmetric: bool) -> Floats:
    low = np.minimum(values.min(axis=axes, keepdims=True), 0).astype(np.float64)
    high = np.maximum(values.max(axis=axes, keepdims=True), 0).astype(np.float64)
    if symmetric:
        scale = np.maximum(high, -low) / 127
        return np.asarray(np.rint(values / scale) * scale)
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale)


WANTED: dict[Precision, Callable[[Floats], Floats]] = {
    "bf16": lambda values: values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64),
    "f16": lambda values: values.astype(np.float32).astype(np.float16).astype(np.float64),
    "tf32": lambda values: significant_bits(values, 11),
}


def run(model: onnx.ModelProto, feeds: Mapping[str, Floats]) -> list[Floats]:
    """Without ONNX Runtime's optimizer, and with onnx's own check of the graph."""
    onnx.checker.check_model(model, full_check=True)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: list[Floats] = session.run(None, dict(feeds))
    return answers


def graph(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    outputs: Sequence[str],
    constants: Mapping[str, Floats],
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with the float input ``x``."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)) for name in outputs],
            [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


@pytest.mark.parametrize("precision", WANTED)
def test_constants_are_rounded_to_the_nearest(precision: Precision) -> None:
    found = ROUNDINGS[precision].constant(spread(), 0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, WANTED[precision](spread()))


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("precision", WANTED)
def test_nodes_round_as_constants_are(precision: Precision, opset: int) -> None:
    model = graph(ROUNDINGS[precision].nodes("x", "y"), [4096], ["y"], {}, opset)
    np.testing.assert_array_equal(run(model, {"x": spread()})[0], WANTED[precision](spread()))


def test_int8_scales_each_channel_of_a_constant() -> None:
    values = spread().reshape(4, 1024) * np.array([[1], [10], [0], [1e-3]], np.float32)
    found = ROUNDINGS["int8"].constant(values, 0)
    np.testing.assert_array_equal(found[2], 0)
    rows = [0, 1, 3]
    np.testing.assert_allclose(found[rows], eight_bits(values[rows], (1,), symmetric=True), rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 2.0, -100.0])
def test_int8_has_one_scale_over_a_tensors_own_range(shift: float) -> None:
    values = np.random.default_rng(0).normal(shift, 1, 4096).astype(np.float32)
    (found,) = run(graph(ROUNDINGS["int8"].nodes("x", "y"), [4096], ["y"], {}), {"x": values})
    scale = (max(values.max(), 0) - min(values.min(), 0)) / 255
    assert np.abs(found - values).max() <= 1.01 * scale  # half a step, and half a one for the zero point
    assert len(np.unique(found)) <= 256
    assert sqnr_db(eight_bits(values, symmetric=False), found) > sqnr_db(values, found) + 10


def answers_rounded(precision: Precision, shown: Floats) -> Floats:
    """Logits of the tiny network in NumPy, rounded where an engine of that precision rounds; sums are float64."""
    network = TinyNetwork()
    kernel, matrix, bias = (network.weights[name].astype(np.float64) for name in ("kernel", "matrix", "bias"))

    def factor(values: Floats) -> Floats:
        return eight_bits(values, symmetric=False) if precision == "int8" else WANTED[precision](values)

    if precision == "int8":
        kernel, matrix = eight_bits(kernel, (1, 2, 3), symmetric=True), eight_bits(matrix, (0,), symmetric=True)
    else:
        kernel, matrix = factor(kernel), factor(matrix)
    padded = np.pad(factor(shown), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    convolved = np.einsum("nhwcij,ocij->nhwo", windows, kernel)
    active = convolved * np.clip(convolved / 6 + 0.5, 0, 1)
    if precision in {"bf16", "f16"}:
        active, bias = factor(active), factor(bias)
    logits = np.asarray(factor(active.mean(axis=(1, 2))) @ matrix + bias)
    return factor(logits) if precision in {"bf16", "f16"} else logits


@pytest.mark.parametrize("precision", ROUNDINGS)
def test_rounds_where_an_engine_rounds(precision: Precision) -> None:
    shown = pictures(16)
    (found,) = run(rounded(TinyNetwork(outputs=("logits",)).onnx_model(), precision), {"input": shown})
    exact = TinyNetwork().answers(shown, np.float64)
    wanted = answers_rounded(precision, shown)
    own_noise_db = sqnr_db(centred_log(exact["probabilities"]), wanted - wanted.mean(axis=-1, keepdims=True))
    assert own_noise_db < 75
    assert sqnr_db(wanted, found) > own_noise_db + 20  # the same rounding to a tenth of what it does


def test_the_right_model_is_left_alone() -> None:
    model = TinyNetwork().onnx_model()
    before = model.SerializeToString(deterministic=True)
    rounded(model, "bf16")
    assert model.SerializeToString(deterministic=True) == before


def is_bf16(values: Floats) -> bool:
    return bool((values == WANTED["bf16"](values)).all())


def test_layers_are_stored_behind_what_is_fused_into_them() -> None:
    """x -> product -> Relu -> Add(x) is one layer; a product that two read is stored itself."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["product"]),
        helper.make_node("Relu", ["product"], ["active"]),
        helper.make_node("Add", ["active", "x"], ["sum"]),
        helper.make_node("MatMul", ["sum", "b"], ["twice"]),
        helper.make_node("Tanh", ["twice"], ["one"]),
        helper.make_node("Abs", ["twice"], ["other"]),
    ]
    constants = {"a": rng.normal(size=(8, 8)), "b": rng.normal(size=(8, 8))}
    x = rng.normal(size=(64, 8)).astype(np.float32)
    model = rounded(graph(nodes, [64, 8], ["sum", "one", "other"], constants), "bf16")
    total, one, other = run(model, {"x": x})
    product = WANTED["bf16"](x) @ WANTED["bf16"](constants["a"].astype(np.float32))
    wanted = WANTED["bf16"](np.maximum(product, 0) + x)
    assert np.mean(total == wanted) > 0.95  # float32 sums may fall on the other side of a rounding
    assert is_bf16(other)
    assert not is_bf16(one)


def test_a_value_that_two_products_read_is_rounded_once() -> None:
    nodes = [helper.make_node("MatMul", ["x", name], [f"y_{name}"]) for name in ("a", "b")]
    model = rounded(graph(nodes, [8, 8], ["y_a", "y_b"], dict.fromkeys(("a", "b"), np.eye(8))), "tf32")
    assert [node.op_type for node in model.graph.node] == ["Constant", "Mul", "Sub", "Sub", "MatMul", "MatMul"]


def test_rounding_twice_changes_nothing() -> None:
    feeds = {"input": pictures(4)}
    once = rounded(TinyNetwork().onnx_model(), "bf16")
    np.testing.assert_array_equal(run(once, feeds), run(rounded(once, "bf16"), feeds))


LAYERS = {
    "Conv": (helper.make_node("Conv", ["x", "w"], ["y"]), (1, 4, 5, 5), (3, 4, 1, 1), 0),
    "ConvTranspose": (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), (1, 4, 5, 5), (4, 3, 1, 1), 1),
    "MatMul": (helper.make_node("MatMul", ["x", "w"], ["y"]), (5, 4), (4, 3), 1),
    "Gemm": (helper.make_node("Gemm", ["x", "w"], ["y"]), (5, 4), (4, 3), 1),
    "Gemm transB": (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (5, 4), (3, 4), 0),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_int8_scales_go_with_the_results_channels(layer: str) -> None:
    """Channels of very different size: with scales along another axis the small ones would be lost."""
    node, shape, kernel, axis = LAYERS[layer]
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, 1e-3, 1e-6])
    weights = rng.normal(size=kernel) * np.expand_dims(sizes, tuple(set(range(len(kernel))) - {axis}))
    x = rng.normal(size=shape).astype(np.float32)
    model = graph([node], shape, ["y"], {"w": weights})
    (right,), (found,) = run(model, {"x": x}), run(rounded(model, "int8"), {"x": x})
    for channel in range(3):
        place = (slice(None), channel)
        assert sqnr_db(right[place], found[place]) > 30


def test_the_model_is_its_own_truth() -> None:
    """A wrong graph must not bring its own limit down to where it stands."""
    network, shown = TinyNetwork(), {"input": pictures(16)}
    network.weights["kernel"] = np.ascontiguousarray(network.weights["kernel"].swapaxes(2, 3))
    wrong = network.onnx_model()
    truth = centred_log(TinyNetwork().answers(shown["input"], np.float64)["probabilities"])
    assert sqnr_db(truth, centred_log(run(wrong, shown)[0])) < 20
    assert precision_floor_db(wrong, shown, PROBABILITIES, "bf16")["probabilities"] > 30


@pytest.mark.parametrize("precision", ["bf16", "f16", "tf32"])
def test_a_batch_of_the_file_is_filled_up(precision: Precision) -> None:
    shown = {"input": pictures(3)}
    fixed, free = (
        precision_floor_db(TinyNetwork().onnx_model(batch), shown, PROBABILITIES, precision) for batch in (2, None)
    )
    assert fixed == pytest.approx(free, abs=0.5)


def test_nothing_to_round_is_infinitely_good() -> None:
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [4, 4], ["y"], {"w": np.eye(4)})
    features = [OutputContract(name="y", shape=[4, 4], kind="features")]
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert precision_floor_db(model, {"x": x}, features, "bf16") == {"y": np.inf}


def test_overflow_of_f16_is_no_number() -> None:
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [4, 4], ["y"], {"w": 1e5 * np.eye(4)})
    features = [OutputContract(name="y", shape=[4, 4], kind="features")]
    x = np.ones((4, 4), np.float32)
    assert np.isnan(precision_floor_db(model, {"x": x}, features, "f16")["y"])
    assert precision_floor_db(model, {"x": x}, features, "bf16")["y"] > 40


def test_openvinos_bf16_stands_where_it_is_predicted(small_artifact: Artifact) -> None:
    """An engine that knows nothing of this code, at the noise that this code predicts."""
    reference, (output,) = read_reference(small_artifact), small_artifact.manifest.outputs
    shown = next(iter(reference.inputs.values()))
    size = small_artifact.manifest.input.size_of(shown)
    options = SessionOptions(mode="production", threads=1, batch=len(shown), size=size)
    path = small_artifact.model_path("openvino:cpu")
    with load_engine("openvino").open(path, "cpu", options) as session:
        if session.facts().precision != "bf16":
            pytest.skip(f"OpenVINO computes in {session.facts().precision} on this CPU")
        answers = session.run(reference.inputs)[output.name]
    found_db = sqnr_db(*(centred_log(array) for array in (reference.keras_float64[output.name], answers)))
    predicted_db = precision_floor_db(onnx.load(path), reference.inputs, [output], "bf16")[output.name]
    assert found_db == pytest.approx(predicted_db, abs=1)
