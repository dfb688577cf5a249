"""Pixels less 127.5 lie between the levels of every grid; less 128 they are levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from mbexport.compare import sqnr_db
from mbexport.quantize.emit import quantized
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.walk import Recipe, settle
from mbexport.quantize.whole_pixels import with_whole_pixels
from mbexport.runtimes.ort_calls import run_unoptimized
from tests.quantizing import SIDE_PX, Writer

if TYPE_CHECKING:
    import onnx

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 3, SIDE_PX, SIDE_PX)).astype(np.float32)


def rescaled(offset: float = -127.5, *, side: int = 1, name: str = "x", transposed: bool = False) -> onnx.ModelProto:
    write = Writer()
    write.constants["offset"] = np.float32(offset)
    read = write.add("Add", [name, "offset"], "rescaled")
    if transposed:
        read = write.add("Transpose", [read], "turned", perm=[0, 1, 3, 2])
    write.conv(read, "stem", (8, 3, side), gain=0.02)
    return write.model({write.conv(write.active("stem", "Relu", "active"), "last", (8, 8, 1)): 4})


def offset_of(network: Network) -> float:
    add = network.makers["rescaled"]
    return float(network.constants[add.input[1]].item())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("offset", [-127.5, -103.94, 3.25])
def test_answers_stay_where_nothing_is_padded(offset: float, transposed: bool) -> None:
    model = rescaled(offset, transposed=transposed)
    after = with_whole_pixels(Network(model), {"rescaled", "turned"})
    assert offset_of(after) == np.floor(offset)
    exact, answers = (run_unoptimized(each, {"x": PIXELS})["last"] for each in (model, after.model))
    assert sqnr_db(exact, answers) > 100


def test_padding_alone_is_off() -> None:
    model = rescaled(side=3)
    after = with_whole_pixels(Network(model), {"rescaled"}).model
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
    ("model", "rounded"),
    [
        (rescaled(), set()),
        (rescaled(-128), {"rescaled"}),
        (rescaled(-0.5), {"rescaled"}),
    ],
    ids=["not rounded", "whole already", "not of pixels"],
)
def test_nothing_to_do(model: onnx.ModelProto, rounded: set[str]) -> None:
    network = Network(model)
    assert with_whole_pixels(network, rounded) is network
