"""What stays in float32 is fitted to what reaches it, and to what an engine will make of its weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from mbexport.compare import sqnr_db
from mbexport.quantize.emit import quantized
from mbexport.quantize.fitting import FloatWeights, Weights, rounded_to_bf16
from mbexport.quantize.network import Network, Product
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.product_fit import Fitter
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import settle
from tests.quantizing import Writer, mobile, pictures

Floats = NDArray[np.float32]


def cut(array: Floats) -> Floats:
    """To the nearest number whose lower half is 0: what bf16 keeps. numpy has no bf16 of its own."""
    low = (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    high = ((array.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    return np.where(np.abs(array - low) <= np.abs(high - array), low, high)


def is_bf16(array: Floats) -> bool:
    return not (np.ascontiguousarray(array).view(np.uint32) & np.uint32(0xFFFF)).any()


def high_pass() -> Product:
    """A depthwise product as trained ones are: large weights that nearly cancel on inputs that hardly vary."""
    write = Writer()
    write.conv("x", "edges", (8, 1, 3), group=8)
    model = write.model({"edges": 4})
    (product,) = Network(model).products.values()
    next(each for each in product.node.attribute if each.name == "pads").ints[:] = [0] * 4  # borders do not cancel
    random = np.random.default_rng(0)
    kernel = random.normal(size=product.kernel.shape) * 40
    kernel -= kernel.mean(axis=(2, 3), keepdims=True)
    return Product(product.node, kernel.astype(np.float32), product.bias, product.groups)


def flat_pictures() -> list[Floats]:
    """40 in batches of 8, far from 0 beside how much they vary; bf16 holds them."""
    smooth = np.repeat(pictures(40)[:, :1], 8, axis=1)
    return list(cut((3 + 0.1 * smooth).astype(np.float32)).reshape(5, 8, *smooth.shape[1:]))


def given(kernel: Floats, bias: Floats, batch: Floats) -> Floats:
    """A 3x3 depthwise product with a stride of 1 and no padding, by its definition."""
    height, width = batch.shape[2] - 2, batch.shape[3] - 2
    total = np.zeros((*batch.shape[:2], height, width))
    for down in range(3):
        for across in range(3):
            read = batch[:, :, down : down + height, across : across + width].astype(np.float64)
            total += read * kernel[:, 0, down, across, None, None]
    return (total + bias[:, None, None]).astype(np.float32)


def fitted(
    product: Product, recipe: Recipe, *, bf16: bool, inputs: list[Floats]
) -> tuple[Weights | FloatWeights, list[Floats], list[Floats]]:
    """Weights, what they give of ``inputs``, and what the network's own give of the pictures."""
    exact = [given(product.kernel, product.bias, batch) for batch in flat_pictures()]
    opsets = [onnx.helper.make_opsetid("", 17)]
    weights, answers = Fitter(recipe, 127, opsets, bf16=bf16).fit(product, None, inputs, exact, spent=False)
    return weights, answers, exact


def test_weights_that_nearly_cancel_lose_little_in_bf16() -> None:
    product, shown = high_pass(), flat_pictures()
    weights, answers, exact = fitted(product, Recipe(), bf16=True, inputs=list(shown))
    assert is_bf16(weights.as_float)
    naive = [given(cut(product.kernel), product.bias, cut(batch)) for batch in shown]
    ours = [given(weights.as_float, weights.bias, cut(batch)) for batch in shown]
    assert sqnr_db(np.stack(ours), np.stack(answers)) > 60  # it says what it gives
    assert sqnr_db(np.stack(exact), np.stack(ours)) > sqnr_db(np.stack(exact), np.stack(naive)) + 6


def test_rounding_one_at_a_time_beats_rounding_to_the_nearest() -> None:
    random = np.random.default_rng(1)
    kernel, mixing = random.normal(size=(2, 16, 24)), random.normal(size=(2, 24, 24))
    covariance = mixing @ (np.geomspace(1, 1e-3, 24) * np.eye(24)) @ mixing.transpose(0, 2, 1)
    found = rounded_to_bf16(kernel, covariance)
    assert is_bf16(found.astype(np.float32))
    assert np.array_equal(found, found.astype(np.float32))

    def error(kept: NDArray[np.float64]) -> float:
        missing = kept - kernel
        return float(np.einsum("goi,gij,goj->", missing, covariance, missing))

    nearest = cut(kernel.astype(np.float32)).astype(np.float64)
    assert error(found) < 0.5 * error(nearest)
    assert np.array_equal(rounded_to_bf16(kernel, np.zeros_like(covariance)), nearest)


@pytest.mark.parametrize("bf16", [False, True])
def test_what_it_reads_stays_as_it_was(*, bf16: bool) -> None:
    shown = flat_pictures()
    before = [batch.copy() for batch in shown]
    held = list(shown)
    fitted(high_pass(), Recipe(), bf16=bf16, inputs=held)
    assert all(one is other for one, other in zip(held, shown, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(shown, before, strict=True))


def test_biases_make_up_for_rounded_inputs() -> None:
    product, shown = high_pass(), flat_pictures()
    coarse = [(np.floor(batch * 8) / 8).astype(np.float32) for batch in shown]  # 1/16 too low on average
    for recipe, is_corrected in ((Recipe(), True), (Recipe(bias_correction=False), False)):
        weights, answers, exact = fitted(product, recipe, bf16=False, inputs=list(coarse))
        assert not isinstance(weights, Weights)
        means = np.abs(np.mean(np.stack(answers) - np.stack(exact), axis=(0, 1, 3, 4)))
        assert (means.max() < 1e-3) == is_corrected


@pytest.mark.parametrize("islands", [Islands(2), Islands(3, pixels=True), Islands(deep=1)])
def test_openvinos_file_holds_weights_that_bf16_holds(islands: Islands) -> None:
    network = Network(mobile())
    shown = list(pictures(40).reshape(5, 8, *pictures(1).shape[1:]))
    numbers = settle(network, place(network, "openvino", islands), shown)
    assert numbers.floats.keys() == network.products.keys() - numbers.weights.keys() != set()
    found = Network(quantized(numbers))
    for output in numbers.floats:
        assert is_bf16(found.products[output].kernel)
        assert not is_bf16(network.products[output].kernel)


def test_weights_that_take_a_scale_a_channel_are_not_rounded_twice() -> None:
    network = Network(mobile("Relu"))
    shown = list(pictures(40).reshape(5, 8, *pictures(1).shape[1:]))
    products = list(network.products)
    ending = Islands(1 + products.index("one/expand"))
    numbers = settle(network, place(network, "openvino", ending), shown)
    assert numbers.folded == {"one/raised", "two/raised"}
    assert not is_bf16(numbers.floats["one/expand"].as_float)
    assert is_bf16(numbers.floats["stem"].as_float)
    without = settle(network, place(network, "openvino", ending), shown, recipe=Recipe(folding=False))
    assert is_bf16(without.floats["one/expand"].as_float)


def test_on_onnx_runtime_only_what_reads_rounded_numbers_is_fitted() -> None:
    """The first product reads what the float network's reads: its weights are right."""
    network = Network(mobile())
    shown = list(pictures(40).reshape(5, 8, *pictures(1).shape[1:]))
    assert not settle(network, place(network, "ort", Islands(2)), shown).floats
    assert settle(network, place(network, "ort", Islands(deep=1)), shown).floats.keys() == {
        *("one/expand", "one/depthwise", "one/reduce", "one/excite")
    }
    kept = settle(network, place(network, "ort", Islands(deep=1)), shown, recipe=Recipe(fitted_islands=False))
    assert not kept.floats
