"""Equalising changes what 8 bits make of a network, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mbexport.compare import sqnr_db
from mbexport.quantize.channel_grids import channel_grid
from mbexport.quantize.counts import count
from mbexport.quantize.emit import quantized
from mbexport.quantize.equalise import equalised
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import Settled, settle
from mbexport.runtimes.ort_calls import run_unoptimized
from tests.quantizing import Writer, mobile, pictures, settled, simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from mbexport.quantize.placement import Engine

ENGINES: list[Engine] = ["ort", "openvino"]
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


def conv_of(write: Writer, tensor: str, channels: int) -> onnx.ModelProto:
    return write.model({write.conv(tensor, "end", (5, channels, 1)): 4})


def constant_times_gate(write: Writer) -> onnx.ModelProto:
    gate = write.add("Sigmoid", [write.conv("x", "a", (8, 3, 1))], "gate")
    write.constants["sizes"] = np.geomspace(0.1, 4, 8, dtype=np.float32).reshape(1, 8, 1, 1)
    return conv_of(write, write.add("Mul", ["sizes", gate], "scaled"), 8)


def pool_turned_over(write: Writer) -> onnx.ModelProto:
    pooled = write.add("GlobalAveragePool", [write.conv("x", "a", (8, 3, 1))], "pooled")
    write.constants["shape"] = np.array([-1, 1, 8, 1])
    return conv_of(write, write.add("Reshape", [pooled, "shape"], "turned"), 1)


def vector_on_a_map(write: Writer) -> onnx.ModelProto:
    """ONNX lays (pictures, 12) along the map's rows, not its channels; the batch is 1."""
    pooled = write.add("GlobalAveragePool", [write.conv("x", "a", (12, 3, 1))], "pooled")
    vector = write.dense(write.add("Flatten", [pooled], "flat"), "d", 12, 12)
    total = write.add("Add", [write.conv("x", "b", (12, 3, 1)), vector], "sum")
    model = conv_of(write, total, 12)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def one_channel_on_all(write: Writer) -> onnx.ModelProto:
    total = write.add("Add", [write.conv("x", "a", (8, 3, 1)), write.conv("x", "one", (1, 3, 1))], "sum")
    write.conv("one", "other", (5, 1, 1))
    return conv_of(write, total, 8)


def depth_multiplier(write: Writer) -> onnx.ModelProto:
    active = write.active(write.conv("x", "a", (8, 3, 1)), "Relu", "active")
    return conv_of(write, write.active(write.conv(active, "d", (16, 1, 3), group=8), "Relu", "raised"), 16)


def flattened_map(write: Writer) -> onnx.ModelProto:
    active = write.active(write.conv("x", "a", (8, 3, 3), strides=[4, 4]), "Relu", "active")
    return write.model({write.dense(write.add("Flatten", [active], "flat"), "end", 8 * 9, 5): 2})


def tied_heads(write: Writer) -> onnx.ModelProto:
    pooled = [write.add("GlobalAveragePool", [write.conv("x", name, (8, 3, 1))], f"{name}/pool") for name in "ab"]
    write.constants["shape"] = np.array([-1, 5])
    one = write.conv(pooled[0], "one", (5, 8, 1))
    two = write.add("Conv", [pooled[1], "one/kernel", "one/bias"], "two")
    return write.model({write.add("Reshape", [head, "shape"], f"{head}/flat"): 2 for head in (one, two)})


def product_of_rows(write: Writer) -> onnx.ModelProto:
    write.constants["shape"] = np.array([0, 8, -1])
    rows = write.add("Reshape", [write.conv("x", "a", (8, 3, 1)), "shape"], "rows")
    write.dense(write.add("Transpose", [rows], "turned", perm=[0, 2, 1]), "end", 8, 5)
    gemm = write.nodes.pop()
    return write.model({write.add("Add", [write.add("MatMul", gemm.input[:2], "product"), gemm.input[2]], "end"): 3})


def infinite_bound(write: Writer) -> onnx.ModelProto:
    write.constants["top"] = np.float32(np.inf)
    return conv_of(write, write.add("Clip", [write.conv("x", "a", (8, 3, 1)), "low", "top"], "active"), 8)


def constant_node(write: Writer) -> onnx.ModelProto:
    write.nodes.append(
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.array(1.5, np.float32)))
    )
    return conv_of(write, write.add("Mul", [write.conv("x", "a", (8, 3, 1)), "k"], "scaled"), 8)


def name_that_is_taken(write: Writer) -> onnx.ModelProto:
    active = write.active(write.conv("x", "a", (8, 3, 1)), "Relu", "active")
    write.constants["active/scale"] = np.geomspace(0.5, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1)
    scaled = write.add("Mul", [active, "active/scale"], "scaled")
    return conv_of(write, write.add("Add", [scaled, write.conv(active, "b", (8, 8, 1))], "sum"), 8)


ODD = (
    *(constant_times_gate, pool_turned_over, vector_on_a_map, one_channel_on_all, depth_multiplier, flattened_map),
    *(tied_heads, product_of_rows, infinite_bound, constant_node, name_that_is_taken),
)


@pytest.mark.parametrize("make", ODD)
def test_odd_graphs(make: Callable[[Writer], onnx.ModelProto]) -> None:
    """Equalising leaves their answers as they are, and 8 bits make no more of them than of others."""
    model = make(Writer())
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 8
    batches = [SHOWN[at : at + batch] for at in range(0, len(SHOWN), batch)]
    exact = run_unoptimized(model, {"x": OTHERS[:batch]})
    equal = run_unoptimized(equalised(Network(model), batches).model, {"x": OTHERS[:batch]})
    for engine in ENGINES:
        network = Network(model)
        numbers = settle(network, place(network, engine, Islands()), batches)
        rounded = run_unoptimized(quantized(numbers), {"x": OTHERS[:batch]})
        for name, answer in exact.items():
            assert sqnr_db(answer, equal[name]) > 110
            assert sqnr_db(answer, rounded[name]) > 10
