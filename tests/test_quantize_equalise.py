"""Equalising changes what 8 bits make of a network, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from mbexport.compare import sqnr_db
from mbexport.quantize.equalise import equalised
from mbexport.quantize.grids import channel_grid, count
from mbexport.quantize.network import Network
from mbexport.quantize.walk import Recipe, Settled
from mbexport.runtimes.ort_calls import run_unoptimized
from tests.quantizing import Writer, mobile, pictures, settled, simulated

if TYPE_CHECKING:
    from mbexport.quantize.placement import Engine

SHOWN, OTHERS = pictures(16), pictures(16, seed=9)


def residual(*, activation: str | None = None) -> onnx.ModelProto:
    """Two products into a sum, whose channels span two orders of magnitude and lie off zero; a product reads it."""
    write = Writer()
    one = write.conv("x", "one", (16, 3, 1))
    two = write.conv("x", "two", (16, 3, 3))
    total = write.add("Add", [one, two], "sum")
    if activation:
        total = write.active(total, activation, "active")
    write.conv(total, "last", (8, 16, 1))
    sizes = np.geomspace(0.1, 10, 16, dtype=np.float32)
    for name in ("one", "two"):
        write.constants[f"{name}/kernel"] *= sizes[:, None, None, None]
        write.constants[f"{name}/bias"] = write.constants[f"{name}/bias"] * sizes + 3 * sizes
    write.constants["last/kernel"] /= sizes[:, None, None]
    return write.model({"last": 4})


def probed(network: Network, tensor: str) -> Any:
    copied = type(network.model)()
    copied.CopyFrom(network.model)
    del copied.graph.output[:]
    copied.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    return run_unoptimized(copied, {"x": OTHERS})[tensor]


@pytest.mark.parametrize("kind", ["HardSwish", "Relu", "Clip low six"])
@pytest.mark.parametrize("top", ["Gemm", "Conv", "MatMul", "none"])
def test_answers_stay(kind: str, top: str) -> None:
    model = mobile(kind, top=top)
    after = equalised(Network(model), [SHOWN[:8], SHOWN[8:]])
    for name, exact in run_unoptimized(model, {"x": OTHERS}).items():
        assert sqnr_db(exact, run_unoptimized(after.model, {"x": OTHERS})[name]) > 110


@pytest.mark.parametrize("activation", [None, "Relu"])
def test_channels_come_nearer(activation: str | None) -> None:
    """Widths far apart end much nearer, and without a ReLU the means end at 0."""
    tensor = "active" if activation else "sum"
    before = Network(residual(activation=activation))
    after = equalised(before, [SHOWN])
    (exact,), (answer,) = (run_unoptimized(each.model, {"x": OTHERS}).values() for each in (before, after))
    assert sqnr_db(exact, answer) > 110
    spans, means = [], []
    for network in (before, after):
        found = probed(network, tensor)
        widths = channel_grid(count([found])).scale
        spans.append(widths.max() / widths.min())
        means.append(np.abs(found.mean(axis=(0, 2, 3)) / (255 * widths)).max())
    assert spans[0] > 50
    assert spans[1] < spans[0] / 5
    assert means[0] > 0.2
    assert bool(means[1] < 0.05) is (activation is None)


@pytest.mark.parametrize("engine", ["ort", "openvino"])
@pytest.mark.parametrize("activation", [None, "Relu"])
def test_eight_bits_leave_more(engine: Engine, activation: str | None) -> None:
    left_db = []
    for recipe in (Recipe(), Recipe(equalising=False)):
        network, numbers = settled(residual(activation=activation), engine, recipe=recipe)
        exact = simulated(network, Settled(network), OTHERS)["last"]
        left_db.append(sqnr_db(exact, simulated(network, numbers, OTHERS)["last"]))
    assert left_db[0] > left_db[1] + 3


def test_what_cannot_be_scaled_stays() -> None:
    """What a hard-swish reads or gives, what leaves the graph, and the picture."""
    before = Network(mobile(gate=False, top="none"))
    after = equalised(before, [SHOWN])
    for name in ("stem", "stem/active", "one/raised", "one/inner", before.outputs[0]):
        np.testing.assert_allclose(probed(after, name), probed(before, name), atol=1e-4)


def test_padding_is_not_shifted() -> None:
    """A 3x3 product behind a sum is padded with 0, which a shift would have to be too."""
    write = Writer()
    total = write.add("Add", [write.conv("x", "one", (8, 3, 1)), write.conv("x", "two", (8, 3, 1))], "sum")
    for name in ("one", "two"):
        write.constants[f"{name}/bias"] += np.geomspace(0.5, 50, 8, dtype=np.float32)
        write.constants[f"{name}/kernel"] *= np.geomspace(0.5, 50, 8, dtype=np.float32)[:, None, None, None]
    write.conv(total, "last", (4, 8, 3))
    before = Network(write.model({"last": 4}))
    after = equalised(before, [SHOWN])
    assert sqnr_db(probed(before, "last"), probed(after, "last")) > 110
    scaled = (probed(after, "sum") / probed(before, "sum")).reshape(16, 8, -1)
    np.testing.assert_allclose(scaled, scaled[:1, :, :1].repeat(16, 0).repeat(144, 2), rtol=1e-3)
    assert scaled.max() > 2 * scaled.min()
