"""f16 where a network's numbers allow it, float32 where they do not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.accuracy.rounding import precision_floor_db
from mbexport.artifact import read_reference
from mbexport.compare import sqnr_db
from mbexport.errors import ArtifactError
from mbexport.outputs import comparable
from mbexport.quantize.half import half
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.runtimes.ort_calls import import_onnxruntime, run_unoptimized
from tests.tiny import TinyNetwork, pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact

    Floats = NDArray[Any]

CHANNELS, SIDE_PX = 6, 8
F16_DB = 55.0
"""Rounding to 11 bits leaves 74 dB; a few layers of it, and the narrowest channel, must not cost more than this."""


def node(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], name=output, **attributes)


def network(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    *,
    side_px: int = SIDE_PX,
    outputs: Sequence[str] = (),
    opset: int = 17,
    rank: int = 4,
) -> onnx.ModelProto:
    """A network of the float32 input ``x``, whose last node's result is an output."""
    names = [*outputs, nodes[-1].output[0]]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, side_px, side_px])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in names],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def kernel(seed: int, scale: float | Floats = 1.0) -> Floats:
    values = np.random.default_rng(seed).normal(0, CHANNELS**-0.5, (CHANNELS, CHANNELS, 1, 1))
    return (values * scale).astype(np.float32)


def chain(kernels: Sequence[Floats]) -> onnx.ModelProto:
    """Convolutions conv0, conv1, ... with a Relu between."""
    nodes, read = [], "x"
    for place in range(len(kernels)):
        nodes += [node("Conv", [read, f"k{place}"], f"conv{place}"), node("Relu", [f"conv{place}"], f"relu{place}")]
        read = f"relu{place}"
    return network(nodes[:-1], {f"k{place}": array for place, array in enumerate(kernels)})


def shown(side_px: int = SIDE_PX, count: int = 3) -> dict[str, Floats]:
    rng = np.random.default_rng(9)
    return {"x": rng.normal(size=(count, CHANNELS, side_px, side_px)).astype(np.float32)}


def run(model: onnx.ModelProto, feeds: Mapping[str, Floats]) -> list[Floats]:
    onnx.checker.check_model(model, full_check=True)
    return list(run_unoptimized(model, feeds).values())


def sqnrs_db(model: onnx.ModelProto, other: onnx.ModelProto, feeds: Mapping[str, Floats]) -> list[float]:
    return [sqnr_db(one, two) for one, two in zip(run(model, feeds), run(other, feeds), strict=True)]


def casts(model: onnx.ModelProto) -> int:
    return sum(found.op_type == "Cast" for found in model.graph.node)


def kernel_types(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_a_well_behaved_network_is_f16_throughout() -> None:
    model = chain([kernel(0), kernel(1), kernel(2)])
    halved = half(model, shown())
    assert halved.islands == []
    assert casts(halved.model) == 2
    assert set(kernel_types(halved.model).values()) == {TensorProto.FLOAT16}
    (found_db,) = sqnrs_db(model, halved.model, shown())
    assert F16_DB < found_db < 100  # above, nothing would have been rounded


@pytest.mark.parametrize("scale", [2.0**17, 2.0**-20])
def test_numbers_that_f16_cannot_hold_stay_float32(scale: float) -> None:
    """In the middle, and undone after: too large, or lost among the subnormals."""
    model = chain([kernel(0), kernel(1, scale), kernel(2, 1 / scale), kernel(3)])
    halved = half(model, shown())
    assert halved.islands == ["conv1", "relu1", "conv2"]
    assert casts(halved.model) == 4
    assert sqnrs_db(model, halved.model, shown())[0] > F16_DB


@pytest.mark.parametrize(("scale", "islands"), [(2.0**13, ["conv1", "relu1", "conv2"]), (2.0**9, [])])
def test_room_is_left_for_pictures_that_were_not_given(scale: float, islands: list[str]) -> None:
    """Pictures three times as bright overflow the first network in f16, and nothing that was given does."""
    model = chain([kernel(0), kernel(1, scale), kernel(2, 1 / scale), kernel(3)])
    halved = half(model, shown())
    assert halved.islands == islands
    for bright in (1, 3):
        assert sqnrs_db(model, halved.model, {"x": bright * shown()["x"]})[0] > F16_DB


def test_results_that_become_too_small_step_by_step() -> None:
    """No single constant is small."""
    down, up = 2.0**-7, 2.0**7
    model = chain([kernel(seed, scale) for seed, scale in enumerate([1, down, down, down, up, up, up, 1])])
    halved = half(model, shown())
    assert {"conv3", "relu3"} <= set(halved.islands)
    assert not {"conv0", "relu0", "conv6", "conv7"}.intersection(halved.islands)
    assert casts(halved.model) == 4
    assert sqnrs_db(model, halved.model, shown())[0] > F16_DB


def test_what_overflows_between_products() -> None:
    nodes = [
        node("Conv", ["x", "k0"], "first"),
        node("Mul", ["first", "first"], "square"),
        node("Sqrt", ["square"], "root"),
        node("Conv", ["root", "k1"], "last"),
    ]
    model = network(nodes, {"k0": kernel(0, 500), "k1": kernel(1)})
    halved = half(model, shown())
    assert halved.islands == ["square", "root"]
    assert sqnrs_db(model, halved.model, shown())[0] > F16_DB


def test_a_bias_that_overflows() -> None:
    nodes = [
        node("Conv", ["x", "k0"], "first"),
        node("Conv", ["first", "k1", "bias"], "raised"),
        node("Add", ["raised", "back"], "lowered"),
        node("Conv", ["lowered", "k2"], "last"),
    ]
    bias = np.full(CHANNELS, 1e5, np.float32)
    constants: dict[str, Any] = {"k0": kernel(0), "k1": kernel(1), "k2": kernel(2), "bias": bias}
    model = network(nodes, constants | {"back": np.float32(-1e5)})
    probes = {"x": 100 * shown()["x"]}  # large enough for float32 to add them to 1e5 well
    halved = half(model, probes)
    assert halved.islands == ["raised", "lowered"]
    assert sqnrs_db(model, halved.model, probes)[0] > F16_DB


def test_partial_sums_that_overflow_though_the_result_does_not() -> None:
    opposed = kernel(1, 1e4)
    opposed[:, 1] = -opposed[:, 0]
    opposed[:, 2:] = 0
    nodes = [
        node("Conv", ["x", "k0"], "first"),
        node("Concat", ["first", "first"], "pair", axis=1),
        node("Conv", ["pair", "k1"], "last"),
    ]
    twice = np.concatenate([opposed, -opposed + kernel(2)], axis=1)
    model = network(nodes, {"k0": kernel(0, 3.0), "k1": twice})
    assert np.abs(run(model, shown())[0]).max() < 100
    assert half(model, shown()).islands == ["last"]


def channel_at(scale: float) -> onnx.ModelProto:
    """One channel ``scale`` as large as the others, which the next convolution makes up for."""
    scales = np.ones((CHANNELS, 1, 1, 1))
    scales[2] = scale
    return chain([kernel(0), kernel(1, scales), kernel(2, 1 / scales.reshape(1, CHANNELS, 1, 1))])


def test_one_channel_of_tiny_weights() -> None:
    assert half(channel_at(2.0**-3), shown()).islands == []
    assert half(channel_at(2.0**-13), shown()).islands == ["conv1"]


def test_a_dead_channel_is_no_loss() -> None:
    scales = np.ones((CHANNELS, 1, 1, 1))
    scales[2] = 1e-9
    model = chain([kernel(0), kernel(1, scales), kernel(2)])
    halved = half(model, shown())
    assert halved.islands == []
    assert sqnrs_db(model, halved.model, shown())[0] > F16_DB


def test_a_tiny_constant_stays() -> None:
    model = network(
        [node("Conv", ["x", "k0"], "first"), node("Add", ["first", "epsilon"], "moved"), node("Relu", ["moved"], "y")],
        {"k0": kernel(0), "epsilon": np.float32(1e-7)},
    )
    halved = half(model, shown())
    assert "moved" in halved.islands
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in halved.model.graph.initializer}
    assert kept["epsilon"] == np.float32(1e-7)


def pooled(side_px: int, op_type: str, **attributes: Any) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "k0"], "first"),
        node("Relu", ["first"], "positive"),
        node(op_type, ["positive"], "pooled", **attributes),
        node("Conv", ["pooled", "k1"], "last"),
    ]
    return network(nodes, {"k0": kernel(0, 4.0), "k1": kernel(1)}, side_px=side_px)


@pytest.mark.parametrize(("op_type", "attributes"), [("GlobalAveragePool", {}), ("ReduceMean", {"axes": [2, 3]})])
def test_a_mean_over_many_places_stays(op_type: str, attributes: dict[str, Any]) -> None:
    """Its sum would overflow in an engine that sums in f16, though the mean is small."""
    assert half(pooled(16, op_type, **attributes), shown(16)).islands == []
    model = pooled(160, op_type, **attributes)
    with np.errstate(over="ignore"):
        assert np.isinf(np.maximum(4 * shown(160, 1)["x"], 0).sum(axis=(2, 3), dtype=np.float16) * 2).any()
    halved = half(model, shown(160, 1))
    assert halved.islands == ["pooled"]
    assert casts(halved.model) == 4


def test_small_probabilities_are_kept() -> None:
    weights = TinyNetwork().weights
    model = TinyNetwork(weights=weights | {"matrix": 2 * weights["matrix"]}).onnx_model()
    probes = {"input": pictures(3)}
    halved = half(model, probes)
    truth, answer = run(model, probes)[0], run(halved.model, probes)[0]
    assert 0 < truth.min() < 1e-9  # f16 ends at 6e-8
    np.testing.assert_allclose(np.log(answer), np.log(truth), atol=0.1)
    assert halved.islands == ["planes", "probabilities"]  # what moves the input, at no price, and softmax
    assert casts(halved.model) == 2


def test_a_normalised_input_is_rounded_once() -> None:
    nodes = [node("Mul", ["x", "scale"], "scaled"), node("Add", ["scaled", "shift"], "moved")]
    model = network(
        [*nodes, node("Conv", ["moved", "k0"], "y")],
        {"scale": np.float32(1 / 127.5), "shift": np.float32(-1), "k0": kernel(0)},
    )
    halved = half(model, {"x": 100 * np.abs(shown()["x"])})
    assert halved.islands == ["scaled", "moved"]
    assert [found.op_type for found in halved.model.graph.node] == ["Mul", "Add", "Cast", "Conv", "Cast"]


def test_what_stands_between_two_islands_joins_them() -> None:
    nodes = [
        node("Conv", ["x", "k0"], "first"),
        node("Softmax", ["first"], "one", axis=1),
        node("Relu", ["one"], "between"),
        node("Softmax", ["between"], "two", axis=1),
        node("Conv", ["two", "k1"], "last"),
    ]
    halved = half(network(nodes, {"k0": kernel(0), "k1": kernel(1)}), shown())
    assert halved.islands == ["one", "between", "two"]
    assert casts(halved.model) == 4


def test_a_constant_that_both_read_is_kept_in_both_types() -> None:
    third = np.float32(1 / 3)
    nodes = [
        node("Mul", ["x", "third"], "prepared"),
        node("Conv", ["prepared", "k0"], "first"),
        node("Mul", ["first", "third"], "y"),
    ]
    halved = half(network(nodes, {"third": third, "k0": kernel(0)}), shown())
    kept = [numpy_helper.to_array(tensor) for tensor in halved.model.graph.initializer if not tensor.dims]
    assert sorted(kept, key=lambda array: array.itemsize) == [np.float16(third), third]
    assert {array.dtype for array in kept} == {np.dtype(np.float16), np.dtype(np.float32)}
    run(halved.model, shown())


def test_an_output_that_is_read_too_keeps_its_name_and_type() -> None:
    nodes = [node("Conv", ["x", "k0"], "inner"), node("Relu", ["inner"], "active"), node("Conv", ["active", "k1"], "y")]
    model = network(nodes, {"k0": kernel(0), "k1": kernel(1)}, outputs=["inner"])
    halved = half(model, shown())
    assert [output.name for output in halved.model.graph.output] == ["inner", "y"]
    assert [array.dtype for array in run(halved.model, shown())] == [np.float32, np.float32]
    assert min(sqnrs_db(model, halved.model, shown())) > F16_DB


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_resizes_scales_are_float32_by_definition(opset: int) -> None:
    nodes = [node("Conv", ["x", "k0"], "first"), node("Resize", ["first", "", "scales"], "wider", mode="linear")]
    constants = {"k0": kernel(0), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = network(nodes, constants, opset=opset)
    halved = half(model, shown())
    assert halved.islands == []
    assert kernel_types(halved.model) == {"k0": TensorProto.FLOAT16, "scales": TensorProto.FLOAT}
    assert sqnrs_db(model, halved.model, shown())[0] > F16_DB


def test_numbers_that_are_no_floats_are_left_alone() -> None:
    nodes = [
        node("Conv", ["x", "k0"], "first"),
        node("Shape", ["first"], "shape"),
        node("Slice", ["shape", "zero", "one"], "batch"),
        node("Concat", ["batch", "rest"], "flat_shape", axis=0),
        node("Reshape", ["first", "flat_shape"], "y"),
    ]
    integers = {name: np.array([value], np.int64) for name, value in (("zero", 0), ("one", 1), ("rest", -1))}
    halved = half(network(nodes, {"k0": kernel(0), **integers}, rank=2), shown())
    assert halved.islands == []
    assert casts(halved.model) == 2
    run(halved.model, shown())


def test_pictures_of_bytes() -> None:
    model = network([node("Cast", ["x"], "floats", to=1), node("Conv", ["floats", "k0"], "y")], {"k0": kernel(0)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    probes = {"x": np.random.default_rng(0).integers(0, 256, (2, CHANNELS, 8, 8), np.uint8)}
    halved = half(model, probes)
    assert halved.model.graph.input[0] == model.graph.input[0]
    assert halved.islands == ["floats"]
    assert sqnrs_db(model, halved.model, probes)[0] > F16_DB


@pytest.mark.parametrize("batch", [None, 2])
def test_the_contract_is_kept(batch: int | None) -> None:
    model = TinyNetwork(outputs=("logits", "features")).onnx_model(batch)
    helper.set_model_props(model, {"spec": "tiny"})
    before = model.SerializeToString(deterministic=True)
    probes = {"input": pictures(3)}
    halved = half(model, probes).model
    assert model.SerializeToString(deterministic=True) == before
    assert halved.graph.input == model.graph.input
    assert halved.graph.output == model.graph.output
    assert halved.metadata_props == model.metadata_props
    assert halved.opset_import == model.opset_import
    assert halved.SerializeToString() == half(model, probes).model.SerializeToString()
    assert run(halved, {"input": pictures(batch or 5)})[0].shape[0] == (batch or 5)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("count", [2, 9, 19])
@pytest.mark.parametrize("place", [0, -1])
def test_every_picture_counts(batch: int | None, count: int, place: int) -> None:
    """Whatever the batch is that pictures are run in."""
    model = chain([kernel(0), kernel(1)])
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    if batch:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    bright = shown(count=count)
    bright["x"][place] *= 2e4
    assert "conv0" in half(model, bright).islands
    assert half(model, {"x": np.delete(bright["x"], place, axis=0)}).islands == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    wrong = kernel(1)
    wrong[0, 0] = value
    with pytest.raises(ArtifactError, match="k1 holds others"):
        half(chain([kernel(0), wrong]), shown())


def test_results_that_are_not_finite() -> None:
    with pytest.raises(ArtifactError, match="conv1 holds others"):
        half(chain([kernel(0, 1e25), kernel(1, 1e25)]), shown())


def test_bodies_are_refused() -> None:
    body = helper.make_graph(
        [node("Identity", ["x"], "inner")],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    condition = node("If", ["yes"], "y", then_branch=body, else_branch=body)
    with pytest.raises(ArtifactError, match="not one with If"):
        half(network([condition], {"yes": np.array(True)}), shown())


@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_a_whole_network_is_as_good_as_f16_can_be(small_artifact: Artifact, tmp_path: Path, engine: str) -> None:
    path, (output,) = small_artifact.model_path("ort:cpu"), small_artifact.manifest.outputs
    model, inputs = onnx.load(path), read_reference(small_artifact).inputs
    halved = half(model, inputs)
    onnx.checker.check_model(halved.model, full_check=True)
    onnx.save(halved.model, tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < 0.52 * path.stat().st_size
    answers = []
    for file in (path, tmp_path / "half.onnx"):
        pixels = next(iter(inputs.values()))
        options = SessionOptions(threads=1, batch=len(pixels), size=small_artifact.manifest.input.size_of(pixels))
        with load_engine(engine).open(file, "cpu", options) as session:
            answers.append(session.run(inputs)[output.name])
    found_db = sqnr_db(*comparable(output, *answers))
    assert found_db > precision_floor_db(model, inputs, [output], "f16")[output.name] - 1
    assert found_db < 80


def test_why_onnxruntimes_own_converter_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once this fails it may serve: what it makes of an island is sorted, and does not overflow in between."""
    import_onnxruntime()
    monkeypatch.setattr(sys, "path", list(sys.path))  # which importing it changes
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = chain([kernel(0), kernel(1, 2.0**17), kernel(2, 2.0**-17), kernel(3)])
    halved = half(model, shown())
    theirs = convert_float_to_float16(model, keep_io_types=True, node_block_list=halved.islands)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(theirs, full_check=True)
    (answer,) = run_unoptimized(theirs, shown()).values()
    assert not np.isfinite(answer).all()
    assert casts(theirs) > casts(halved.model)
