"""What calibration is worth, ingredient by ingredient, and what it says of numbers that are none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from mbexport.compare import sqnr_db
from mbexport.errors import ArtifactError
from mbexport.quantize.network import Network
from mbexport.quantize.node_runs import run_node
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import Settled, _Walk, settle
from tests.quantizing import SIDE_PX, Writer, mobile, pictures, settled, simulated

if TYPE_CHECKING:
    from mbexport.quantize.network import Product
    from mbexport.quantize.node_runs import Batches
    from mbexport.quantize.placement import Engine

OTHERS = pictures(200, seed=7)
PLAIN = Recipe(
    equalising=False,
    weighted_ranges=False,
    folding=False,
    by_channel=False,
    refitting=False,
    making_up=False,
    bias_correction=False,
)
ENGINES: list[Engine] = ["ort", "openvino"]


def left_db(model: onnx.ModelProto, engine: Engine, recipe: Recipe | None = None, levels: int = 127) -> float:
    """On pictures that calibrated nothing."""
    network, numbers = settled(model, engine, recipe=recipe, levels=levels)
    name = network.outputs[0]
    exact = simulated(network, type(numbers)(network), OTHERS)[name]
    return sqnr_db(exact, simulated(network, numbers, OTHERS)[name])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["HardSwish", "Relu"])
def test_the_recipe_is_better_than_the_plain_one(kind: str, engine: Engine) -> None:
    """By far where weights are what is rounded most; nowhere worse by more than chance."""
    model = mobile(kind, top="none")
    assert left_db(model, engine) > left_db(model, engine, PLAIN) - 0.5
    assert left_db(model, engine, levels=7) > left_db(model, engine, PLAIN, levels=7) + 3


@pytest.mark.parametrize("engine", ENGINES)
def test_seven_bits_are_worse_than_eight(engine: Engine) -> None:
    model = mobile("Relu", top="none")
    assert 12 < left_db(model, engine, levels=63) < left_db(model, engine)


def unlike_channels() -> onnx.ModelProto:
    """The channels into a depthwise convolution differ a hundredfold, which the next weights make up for."""
    write = Writer()
    raised = write.active(write.conv("x", "expand", (16, 3, 1)), "Relu", "raised")
    write.conv(raised, "depthwise", (16, 1, 3), group=16)
    sizes = np.geomspace(0.1, 10, 16, dtype=np.float32)
    write.constants["expand/kernel"] *= sizes[:, None, None, None]
    write.constants["expand/bias"] *= sizes
    write.constants["depthwise/kernel"] /= sizes[:, None, None, None]
    return write.model({write.conv("depthwise", "last", (8, 16, 1)): 4})


@pytest.mark.parametrize("engine", ENGINES)
def test_folding_mends_channels_that_are_unlike(engine: Engine) -> None:
    model = unlike_channels()
    assert left_db(model, engine) > left_db(model, engine, Recipe(folding=False)) + 5


def test_biases_are_corrected() -> None:
    """Clipped ranges move the mean; what is left of the mean error of a channel is chance."""
    model = mobile("Relu", top="none")
    shown, (network, numbers) = pictures(40), settled(model, "ort")
    exact, rounded = (simulated(network, each, shown) for each in (type(numbers)(network), numbers))
    for output in numbers.weights:
        if output in numbers.grids or exact[output].shape[2:] == (1, 1):
            continue  # seen after rounding, or of one number a picture
        errors = (rounded[output] - exact[output]).mean(axis=(0, 2, 3))
        assert np.abs(errors).max() < 0.01 * np.abs(exact[output]).max(), output


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_rounded_but_what_is_placed(engine: Engine) -> None:
    network, numbers = settled(mobile(), engine)
    placement = place(network, engine, Islands())
    assert set(numbers.grids) == set(placement.tensors)
    assert set(numbers.weights) == set(placement.products) == set(network.products)
    assert numbers.folded | numbers.hard_swishes <= set(numbers.grids)
    for product in network.products.values():
        assert product.input in numbers.grids


def test_engines_get_their_own_forms() -> None:
    """On ONNX Runtime a hard-swish reads 8-bit numbers; OpenVINO gets one grid a channel into depthwise products."""
    (_, ort), (network, openvino) = settled(mobile(), "ort"), settled(mobile(), "openvino")
    assert {"stem", "one/expand", "one/depthwise"} <= ort.hard_swishes
    assert not openvino.hard_swishes
    assert set(openvino.grids) == {product.input for product in network.products.values()}
    assert openvino.grids["one/raised"].scale.shape == (16,)
    assert ort.grids["one/raised"].scale.shape == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_dead_channels(engine: Engine) -> None:
    """A channel that is always 0 on these pictures leaves everything else as good as it was."""
    alive, dead = mobile("Relu", top="none"), mobile("Relu", top="none")
    for tensor in dead.graph.initializer:
        if tensor.name in {"stem/kernel", "stem/bias", "one/expand/kernel", "one/expand/bias"}:
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[3] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    _, numbers = settled(dead, engine)
    for grid in numbers.grids.values():
        assert np.isfinite(grid.scale).all()
        assert (grid.scale > 0).all()
    assert left_db(dead, engine) > left_db(alive, engine) - 6


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(equalising=False)])
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_numbers_that_overflow_are_refused(engine: Engine, first: int, recipe: Recipe) -> None:
    write = Writer()
    write.active(write.conv("x", "first", (8, 3, 3), gain=1e30), "Relu", "raised")
    write.conv(write.add("Mul", ["raised", "raised"], "square"), "second", (8, 8, 1))
    network = Network(write.model({write.conv("second", "last", (8, 8, 1)): 4}))
    with pytest.raises(ArtifactError, match="holds numbers that are not finite"):
        settle(network, place(network, engine, Islands(first)), [pictures(4)], recipe=recipe)


@pytest.mark.parametrize("engine", ENGINES)
def test_constant_pictures(engine: Engine) -> None:
    """All black and all white ones leave odd ranges, but numbers."""
    model = mobile()
    network = Network(model)
    flat = np.concatenate([np.full((2, 3, 12, 12), shade, np.float32) for shade in (-1, 1)])
    numbers = settle(network, place(network, engine, Islands()), [flat])
    for answer in simulated(numbers.network, numbers, OTHERS).values():
        assert np.isfinite(answer).all()


def test_a_network_may_be_deeper_than_calls_may_nest() -> None:
    write = Writer()
    read = write.conv("x", "first", (4, 3, 1))
    for at in range(sys.getrecursionlimit() // 2):
        read = write.active(write.conv(read, f"{at}", (4, 4, 1)), "Relu", f"{at}/active")
    network, numbers = settled(write.model({write.conv(read, "last", (4, 4, 1)): 4}), "ort")
    assert len(numbers.weights) == len(network.products) > sys.getrecursionlimit() // 2


def test_what_nothing_reads_any_more_is_let_go() -> None:
    """A tensor of all pictures may be 1 GB, and two of them stand side by side."""
    batches = list(pictures(6)[:, None])
    node, opsets = onnx.helper.make_node("Relu", ["x"], ["y"]), [onnx.helper.make_opsetid("", 17)]
    (kept,) = run_node(node, {"x": batches}, {}, opsets)
    assert all(np.array_equal(one, np.maximum(batch, 0)) for one, batch in zip(kept, batches, strict=True))
    (found,) = run_node(node, {"x": batches}, {}, opsets, spent=["x"])
    assert all(np.array_equal(one, other) for one, other in zip(found, kept, strict=True))
    assert [batch.size for batch in batches] == [0] * 6


@pytest.mark.parametrize("engine", ENGINES)
def test_the_pictures_stay_as_they_were(engine: Engine) -> None:
    network, batches = Network(mobile()), list(pictures(40).reshape(5, 8, 3, SIDE_PX, SIDE_PX))
    held, before = list(batches), [batch.copy() for batch in batches]
    settle(network, place(network, engine, Islands()), batches)
    assert all(one is other for one, other in zip(batches, held, strict=True))
    assert np.array_equal(held, before)


@pytest.mark.parametrize(("engine", "first"), [("ort", 0), ("ort", 1), ("openvino", 0), ("openvino", 3)])
def test_the_float_network_is_not_rounded(engine: Engine, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a tensor that is rounded was the same in both networks: the input, and behind what stays in float32."""
    network, shown = Network(mobile()), pictures(40)
    truth = simulated(network, Settled(network), shown)
    seen: dict[str, float] = {}
    fit = _Walk._fit

    def spied(walk: _Walk, product: Product, inputs: Batches, exact: Batches, *, spent: bool) -> Batches:
        seen[product.output] = sqnr_db(truth[product.output], np.concatenate(exact))
        return fit(walk, product, inputs, exact, spent=spent)

    monkeypatch.setattr(_Walk, "_fit", spied)
    recipe = Recipe(equalising=False, widening=False, whole_pixels=False)
    settle(network, place(network, engine, Islands(first)), [shown], recipe=recipe)
    assert len(seen) == len(network.products) - (first if engine == "ort" else 0)
    assert min(seen.values()) > 100
