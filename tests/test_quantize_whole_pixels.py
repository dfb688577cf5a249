"""Pixels less 127.5 lie between the levels of every grid; less 128 they are levels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from mbexport.compare import sqnr_db
from mbexport.quantize.emit import quantized
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import settle
from mbexport.quantize.whole_pixels import with_whole_pixels
from mbexport.runtimes.ort_calls import run_unoptimized
from tests.quantizing import SIDE_PX, Writer

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 3, SIDE_PX, SIDE_PX)).astype(np.float32)


def rescaled(
    offset: float = -127.5, *, side: int = 1, transposed: bool = False, cast: bool = False, turned: bool = False
) -> onnx.ModelProto:
    write = Writer()
    write.constants["offset"] = np.float32(offset)
    name = write.add("Cast", ["x"], "cast", to=onnx.TensorProto.FLOAT) if cast else "x"
    read = write.add("Add", ["offset", name] if turned else [name, "offset"], "rescaled")
    if transposed:
        read = write.add("Transpose", [read], "turned", perm=[0, 1, 3, 2])
    write.conv(read, "stem", (8, 3, side), gain=0.02)
    return write.model({write.conv(write.active("stem", "Relu", "active"), "last", (8, 8, 1)): 4})


def offset_of(network: Network) -> float:
    add = network.makers["rescaled"]
    return next(float(network.constants[name].item()) for name in add.input if name in network.constants)


@pytest.mark.parametrize("written", ["plain", "transposed", "cast", "turned"])
@pytest.mark.parametrize(("offset", "whole"), [(-127.5, -128), (-116.28, -116), (-103.94, -104), (3.25, 3)])
def test_answers_stay_where_nothing_is_padded(offset: float, whole: int, written: str) -> None:
    model = rescaled(offset, **({} if written == "plain" else {written: True}))
    after = with_whole_pixels(Network(model), {"rescaled", "turned"}, [PIXELS])
    assert offset_of(after) == whole
    exact, answers = (run_unoptimized(each, {"x": PIXELS})["last"] for each in (model, after.model))
    assert sqnr_db(exact, answers) > 100


def test_padding_alone_is_off() -> None:
    model = rescaled(side=3)
    after = with_whole_pixels(Network(model), {"rescaled"}, [PIXELS]).model
    exact, answers = (run_unoptimized(each, {"x": PIXELS})["last"] for each in (model, after))
    inner = np.s_[:, :, 1:-1, 1:-1]
    assert sqnr_db(exact[inner], answers[inner]) > 100
    assert 30 < sqnr_db(exact, answers) < 100


def test_pixels_are_rounded_without_error() -> None:
    model = rescaled(side=3)
    network = Network(model)

    def left_db(recipe: Recipe) -> float:
        numbers = settle(network, place(network, "openvino", Islands()), [PIXELS], recipe=recipe)
        grid = numbers.grids["rescaled"]
        shown = PIXELS + offset_of(numbers.network)
        return sqnr_db(shown, grid.rounded(shown))

    assert left_db(Recipe()) > 100
    assert left_db(Recipe(whole_pixels=False)) < 60


def test_8_bits_gain_by_it() -> None:
    network = Network(rescaled(side=3))
    exact = run_unoptimized(network.model, {"x": PIXELS})["last"]

    def left_db(recipe: Recipe) -> float:
        numbers = settle(network, place(network, "openvino", Islands()), [PIXELS], recipe=recipe)
        return sqnr_db(exact, run_unoptimized(quantized(numbers), {"x": PIXELS})["last"])

    assert left_db(Recipe()) > left_db(Recipe(whole_pixels=False)) + 0.5


@pytest.mark.parametrize(
    ("offset", "rounded", "shown"),
    [
        (-127.5, set(), PIXELS),
        (-128, {"rescaled"}, PIXELS),
        (1.987, {"rescaled"}, PIXELS / 55),
        (-0.5, {"rescaled"}, np.rint(PIXELS / 255)),
    ],
    ids=["not rounded", "whole already", "no whole numbers", "no pixels"],
)
def test_nothing_to_do(offset: float, rounded: set[str], shown: np.ndarray) -> None:
    network = Network(rescaled(offset))
    assert with_whole_pixels(network, rounded, [shown]) is network
