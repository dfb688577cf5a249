"""Channels of 0 beside those of depthwise products: the engine computes others fast, and the answers stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from mbexport.compare import sqnr_db
from mbexport.quantize.emit import quantized
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import settle
from mbexport.quantize.widen import widened
from mbexport.runtimes.ort_calls import run_unoptimized
from tests.quantizing import Writer, mobile, pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from mbexport.quantize.placement import Engine

SHOWN, OTHERS = pictures(32), pictures(16, seed=9)


def narrow(kind: str = "Relu", channels: int = 12, *, write: Writer | None = None, last: int = 8) -> Writer:
    """Expansion, depthwise product, squeeze-excite and projection."""
    write = write or Writer()
    raised = write.active(write.conv("x", "expand", (channels, 3, 1)), kind, "raised")
    inner = write.active(write.conv(raised, "depthwise", (channels, 1, 3), group=channels), kind, "inner")
    reduced = write.active(
        write.conv(write.add("GlobalAveragePool", [inner], "pool"), "reduce", (4, channels, 1)), kind, "few"
    )
    gate = write.active(write.conv(reduced, "excite", (channels, 4, 1)), "HardSigmoid", "gate")
    write.conv(write.add("Mul", [inner, gate], "gated"), "project", (last, channels, 1))
    return write


def wide(network: Network, multiple: int = 16) -> Network:
    return widened(network, list(network.products), multiple)


def depthwise_groups(model: onnx.ModelProto) -> list[int]:
    groups = [next((a.i for a in node.attribute if a.name == "group"), 1) for node in model.graph.node]
    return [found for found in groups if found > 1]


@pytest.mark.parametrize("kind", ["Relu", "HardSwish", "Clip low six"])
@pytest.mark.parametrize(("channels", "expected"), [(12, 16), (16, 16), (17, 32), (72, 80)])
def test_answers_stay(kind: str, channels: int, expected: int) -> None:
    model = narrow(kind, channels).model({"project": 4})
    after = wide(Network(model)).model
    onnx.checker.check_model(after, full_check=True)
    assert depthwise_groups(after) == [expected]
    exact, answers = (run_unoptimized(each, {"x": OTHERS})["project"] for each in (model, after))
    assert sqnr_db(exact, answers) > 120


def test_new_channels_are_nothing() -> None:
    network = wide(Network(narrow().model({"project": 4})))
    for name in ("expand", "depthwise", "excite"):
        product = network.products[name]
        assert product.kernel.shape[0] == 16
        assert not product.kernel[12:].any()
        assert not product.bias[12:].any()
    assert not network.products["project"].kernel[:, 12:].any()
    assert network.products["reduce"].kernel.shape[:2] == (4, 16)
    assert network.products["project"].kernel.shape[0] == 8


def test_only_what_will_be_in_8_bits() -> None:
    network = Network(narrow().model({"project": 4}))
    assert widened(network, set(network.products) - {"depthwise"}, 16) is network
    assert widened(network, network.products, 1) is network


def given_to_the_caller(write: Writer) -> onnx.ModelProto:
    return narrow(write=write).model({"project": 4, "inner": 4})


def read_from_the_caller(write: Writer) -> onnx.ModelProto:
    return write.model({write.conv(write.conv("x", "depthwise", (3, 1, 3), group=3), "project", (8, 3, 1)): 4})


def one_channel_on_all(write: Writer) -> onnx.ModelProto:
    one = write.conv(narrow(write=write).add("Relu", ["project"], "before"), "one", (1, 8, 1))
    depthwise = write.conv(write.conv("before", "b", (12, 8, 1)), "depthwise_2", (12, 1, 3), group=12)
    total = write.add("Add", [depthwise, one], "sum")
    return write.model({write.conv(total, "end", (8, 12, 1)): 4})


def depth_multiplier(write: Writer) -> onnx.ModelProto:
    raised = write.active(write.conv("x", "a", (12, 3, 1)), "Relu", "raised")
    return write.model({write.conv(write.conv(raised, "d", (24, 1, 3), group=12), "end", (8, 24, 1)): 4})


def scale_by_channel(write: Writer) -> onnx.ModelProto:
    depthwise = write.conv(write.conv("x", "a", (12, 3, 1)), "depthwise", (12, 1, 3), group=12)
    write.constants["sizes"] = np.ones((1, 12, 1, 1), np.float32)
    return write.model({write.conv(write.add("Mul", [depthwise, "sizes"], "scaled"), "end", (8, 12, 1)): 4})


def flattened(write: Writer) -> onnx.ModelProto:
    pooled = write.add("GlobalAveragePool", [narrow(write=write, last=8).nodes[-2].output[0]], "last")
    return write.model({write.dense(write.add("Flatten", [pooled], "flat"), "end", 12, 5): 2})


def sum_around(write: Writer) -> onnx.ModelProto:
    """A residual sum around a block without expansion shares its channels with the depthwise product."""
    stem = write.active(write.conv("x", "stem", (12, 3, 1)), "Relu", "start")
    inner = write.conv(write.conv(stem, "depthwise", (12, 1, 3), group=12), "inner", (12, 12, 1))
    return write.model({write.conv(write.add("Add", [inner, stem], "sum"), "end", (8, 12, 1)): 4})


ODD: dict[Callable[[Writer], onnx.ModelProto], list[int]] = {
    given_to_the_caller: [12],
    read_from_the_caller: [3],
    one_channel_on_all: [16, 12],
    depth_multiplier: [12],
    scale_by_channel: [12],
    flattened: [12],
    sum_around: [16],
}


@pytest.mark.parametrize("make", ODD)
def test_odd_graphs(make: Callable[[Writer], onnx.ModelProto]) -> None:
    """What cannot be widened is left as it is."""
    model = make(Writer())
    after = wide(Network(model)).model
    assert depthwise_groups(after) == ODD[make]
    exact, answers = (run_unoptimized(each, {"x": OTHERS}) for each in (model, after))
    for name, answer in exact.items():
        assert sqnr_db(answer, answers[name]) > 120


def test_onnx_runtimes_form_is_widened() -> None:
    """And 8 bits make of the network what they would have made."""
    network = Network(narrow("HardSwish").model({"project": 4}))

    def file(engine: Engine, recipe: Recipe) -> onnx.ModelProto:
        return quantized(settle(network, place(network, engine, Islands()), [SHOWN[:16], SHOWN[16:]], recipe=recipe))

    plain, widest = (file("ort", Recipe(widening=each)) for each in (False, True))
    assert (depthwise_groups(plain), depthwise_groups(widest)) == ([12], [16])
    assert depthwise_groups(file("openvino", Recipe())) == [12]
    exact, *answers = (run_unoptimized(each, {"x": OTHERS})["project"] for each in (network.model, plain, widest))
    before_db, after_db = (sqnr_db(exact, each) for each in answers)
    assert after_db > before_db - 0.5


def test_nothing_to_widen() -> None:
    network = Network(mobile())
    assert wide(network) is network
