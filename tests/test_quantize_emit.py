"""An emitted file computes what the walk settled, operator for operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mbexport.compare import sqnr_db
from mbexport.quantize.emit import quantized
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, left_by
from mbexport.quantize.recipe import Recipe
from mbexport.runtimes.ort_calls import import_onnxruntime, run_unoptimized
from tests.quantizing import Writer, mobile, operators, pictures, settled, simulated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mbexport.quantize.placement import Engine
    from mbexport.quantize.walk import Settled

ENGINES: list[Engine] = ["ort", "openvino"]
SHOWN = pictures(16, seed=5)
TIES_DB, TIES = 4.0, 0.25
"""So far under the rounding's own noise lies what ties make of it, and so many numbers at most take the next step. How
many tie depends on how a CPU sums: one case stands 5.8 dB under it on one, and more on another."""


def emitted(network: Network, numbers: Settled) -> onnx.ModelProto:
    model = quantized(numbers)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input == network.model.graph.input
    assert model.graph.output == network.model.graph.output
    return model


def probed(model: onnx.ModelProto, *tensors: str) -> list[NDArray[np.float32]]:
    """Tensors inside a model."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.helper.make_empty_tensor_value_info(tensor) for tensor in tensors)
    return list(run_unoptimized(copied, {"x": SHOWN}).values())


def assert_computes_what_was_settled(model: onnx.ModelProto, network: Network, numbers: Settled) -> None:
    """Every rounded tensor, and what comes out before the softmax."""
    found, expected = emitted(network, numbers), simulated(network, numbers, SHOWN)
    last = "logits" if "logits" in expected else network.outputs[0]
    rounded = list(numbers.grids)
    *seen, answer = probed(found, *(f"{name}/DequantizeLinear" for name in rounded), last)
    for name, array in zip(rounded, seen, strict=True):
        shape = (1, -1, 1, 1) if numbers.grids[name].scale.ndim else ()
        step = numbers.grids[name].scale.reshape(shape)
        stands_for = array * step if name in numbers.folded else array
        assert (np.abs(stands_for - expected[name]) > 0.1 * step).mean() < TIES, name
    (exact,) = probed(model, last)
    truth_db, same_db = sqnr_db(exact, expected[last]), sqnr_db(expected[last], answer)
    assert 12 < truth_db < 60, "nothing was rounded, or nothing is left"
    assert same_db > truth_db + TIES_DB


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["HardSwish", "Relu", "Clip low six", "Clip low half", "Clip minus six", "Clip low -"])
def test_each_activation(kind: str, engine: Engine) -> None:
    model = mobile(kind)
    assert_computes_what_was_settled(model, *settled(model, engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("top", ["Conv", "MatMul", "none"])
def test_each_top(top: str, engine: Engine) -> None:
    model = mobile(top=top)
    assert_computes_what_was_settled(model, *settled(model, engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("first", [1, 2, 5, 8])
def test_float32_at_the_start(first: int, engine: Engine) -> None:
    model = mobile()
    network, numbers = settled(model, engine, islands=Islands(first))
    assert list(numbers.weights) == list(network.products)[first:]
    assert_computes_what_was_settled(model, network, numbers)


def test_a_block_in_float32_on_openvino() -> None:
    model = mobile()
    network, numbers = settled(model, "openvino", islands=Islands(deep=1))
    assert network.products.keys() - numbers.weights.keys() == left_by(network, Islands(deep=1)) != set()
    assert_computes_what_was_settled(model, network, numbers)


@pytest.mark.parametrize("islands", [Islands(expanding=True), Islands(1, deep=1)])
def test_float32_between_8_bit_products(islands: Islands) -> None:
    """On ONNX Runtime, which at its defaults must find nothing there to round on its own."""
    model = mobile()
    network, numbers = settled(model, "ort", islands=islands)
    assert network.products.keys() - numbers.weights.keys() == left_by(network, islands)
    assert_computes_what_was_settled(model, network, numbers)
    found = emitted(network, numbers)
    (exact,), (written,) = (list(run_unoptimized(each, {"x": SHOWN}).values()) for each in (model, found))
    session = import_onnxruntime().InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": SHOWN})
    assert sqnr_db(written, answer) > sqnr_db(exact, written) + TIES_DB


@pytest.mark.parametrize(
    "left_out", ["weighted_ranges", "folding", "by_channel", "refitting", "making_up", "fitted_islands"]
)
@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_without_an_ingredient(left_out: str, first: int, engine: Engine) -> None:
    model, recipe = mobile("Relu"), Recipe(**{left_out: False})
    assert_computes_what_was_settled(model, *settled(model, engine, islands=Islands(first), recipe=recipe))


@pytest.mark.parametrize("is_in_float32", [False, True])
def test_folded_scales_are_one_grid_for_each_channel(*, is_in_float32: bool) -> None:
    """The file has one scale for the tensor, and its numbers are those of a scale for each channel."""
    model = mobile("Clip low six", gate=False)
    products = list(Network(model).products)
    islands = Islands(1 + products.index("one/expand") if is_in_float32 else 0)
    network, numbers = settled(model, "ort", islands=islands, recipe=Recipe(caution=False))
    assert "one/raised" in numbers.folded
    assert ("one/expand" in numbers.weights) != is_in_float32
    grid = numbers.grids["one/raised"]
    assert len(np.unique(grid.scale)) > 4
    found = emitted(network, numbers)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    assert constants["one/raised/scale"].shape == ()
    (rounding,) = [node for node in found.graph.node if node.name == "one/raised/QuantizeLinear"]
    assert not rounding.attribute
    (stored,) = probed(found, "one/raised/DequantizeLinear")
    read = stored * grid.scale.reshape(1, -1, 1, 1)
    expected = simulated(network, numbers, SHOWN)["one/raised"]
    ties = np.abs(read - expected) > 1e-3 * grid.scale.reshape(1, -1, 1, 1)
    assert ties.mean() < 0.005
    assert np.array_equal(stored, np.rint(stored))
    assert stored.max() > 100


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_hard_swish_in_8_bit_numbers_is_the_operator(spread: float) -> None:
    """Whether the range ends before 3 or behind it, where the Clip is needed."""
    write = Writer()
    write.active(write.conv("x", "first", (8, 3, 3), gain=spread), "HardSwish", "active")
    model = write.model({write.conv("active", "last", (8, 8, 1)): 4})
    network, numbers = settled(model, "ort")
    found = emitted(network, numbers)
    assert "HardSwish" not in operators(found)
    point = int(numbers.grids["first"].zero_point)
    assert (2 * point < 255) == ("Clip" in operators(found)) == (spread > 1)
    read, answered = probed(found, "first/DequantizeLinear", "active")
    assert answered == pytest.approx(read * np.clip(read + 3, 0, 6) / 6, abs=1e-5)
    assert read.min() < -0.5


def test_weights_and_biases_are_what_was_settled() -> None:
    network, numbers = settled(mobile(top="MatMul"), "ort", levels=63, recipe=Recipe(folding=False))
    found = emitted(network, numbers)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    integers = {name: array for name, array in constants.items() if name.endswith("kernel_int8")}
    assert len(integers) == len(network.products) == 10
    assert all(array.dtype == np.int8 and np.abs(array.astype(int)).max() == 63 for array in integers.values())
    for output, weights in numbers.weights.items():
        product = network.products[output]
        bias = constants[f"{product.name}/bias_int32"]
        assert bias.dtype == np.int32
        units = constants[f"{product.name}/bias_scale"]
        assert (np.abs(bias * units - weights.bias) <= units / 2 + 1e-6 * np.abs(weights.bias)).all()
    floats = [name for name, array in constants.items() if array.dtype == np.float32 and array.ndim > 1]
    assert floats == []


def test_activations_that_the_8_bit_range_ends_for_them_are_dropped() -> None:
    """A Relu before unsigned numbers without zero point; not where it is read by something else too."""
    network, numbers = settled(mobile("Relu", gate=False), "ort")
    assert operators(emitted(network, numbers))["Relu"] == 0
    write = Writer()
    raised = write.active(write.conv("x", "first", (8, 3, 3)), "Relu", "raised")
    write.add("Add", [write.conv(raised, "last", (8, 8, 1)), "first"], "sum")  # reads what stands before the Relu
    model = write.model({"sum": 4})
    network, numbers = settled(model, "openvino")
    assert operators(emitted(network, numbers))["Relu"] == 1
    assert_computes_what_was_settled(model, network, numbers)


def test_a_clip_stays_where_the_range_goes_further() -> None:
    """To 0.5, of a tensor that is an output too, and so is never rounded there."""
    write = Writer()
    raised = write.active(write.conv("x", "first", (8, 3, 3), gain=4), "Clip low half", "raised")
    model = write.model({write.conv(raised, "last", (8, 8, 1)): 4, "raised": 4})
    for engine in ENGINES:
        network, numbers = settled(model, engine)
        answer = run_unoptimized(emitted(network, numbers), {"x": SHOWN})
        assert answer["raised"].max() <= 0.5 + 1e-6
        assert answer["raised"].min() >= 0
        exact = run_unoptimized(model, {"x": SHOWN})
        assert min(sqnr_db(exact[name], answer[name]) for name in answer) > 25


def test_the_same_pictures_give_the_same_bytes() -> None:
    first, second = (quantized(settled(mobile(), "ort")[1]).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
