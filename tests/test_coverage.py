from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.accuracy.coverage import knee_coverage
from mbexport.accuracy.exposing import expose_all
from mbexport.manifest import Coverage
from mbexport.pictures import REFERENCE_PICTURES, REFERENCE_SEED, pictures, reference_pictures
from mbexport.pipeline import build
from mbexport.runtimes.ort_calls import run_unoptimized
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact

OPSETS = [14, 17, 21]


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    overridable: Sequence[str] = (),
) -> onnx.ModelProto:
    """``x`` -> ``y``; any number of rows, two columns."""
    tensors = [
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (constants or {}).items()
    ]
    shape: list[str | int | None] = ["batch", 2]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in overridable]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    proto = helper.make_graph(list(nodes), "small", inputs, outputs, tensors)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def covered(model: onnx.ModelProto, *numbers: float) -> Coverage:
    """For inputs of a row each, its other column 0.5."""
    inputs = {"x": np.array([[number, 0.5] for number in numbers], np.float32)}
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    expose_all(exposed)
    return knee_coverage(model.graph, inputs | run_unoptimized(exposed, inputs))


def node(op_type: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, ["x", *inputs], ["y"], name="layer/it", **attributes)


ACTIVATIONS = {
    "Relu": (node("Relu"), (0.0,)),
    "LeakyRelu": (node("LeakyRelu", alpha=0.3), (0.0,)),
    "PRelu": (node("PRelu", "slope"), (0.0,)),
    "HardSwish": (node("HardSwish"), (-3.0, 3.0)),
    "HardSigmoid by default": (node("HardSigmoid"), (-2.5, 2.5)),
    "Keras's hard sigmoid": (node("HardSigmoid", alpha=1 / 6, beta=0.5), (-3.0, 3.0)),
    "ReLU6": (node("Clip", "zero", "six"), (0.0, 6.0)),
    "Clip from below": (node("Clip", "zero"), (0.0,)),
    "Clip from above": (node("Clip", "", "six"), (6.0,)),
    "Clip to the largest number": (node("Clip", "zero", "largest"), (0.0,)),
}
CONSTANTS = {"zero": 0.0, "six": 6.0, "slope": 0.25, "largest": np.finfo(np.float32).max}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_knee_needs_values_on_both_sides(name: str, opset: int) -> None:
    activation, knees = ACTIVATIONS[name]
    model = graph([activation], CONSTANTS, opset=opset)
    around = [knee + side for knee in knees for side in (-0.01, 0.01)]
    assert covered(model, *around) == Coverage(activations=1, knees=len(knees), crossed=len(knees), missed=[])
    for knee in knees:
        moved, side = (max, 0.01) if knee < 0.5 else (min, -0.01)  # to the side of it on which the other column lies
        found = covered(model, *(moved(number, knee + side) for number in around))
        assert found == Coverage(
            activations=1, knees=len(knees), crossed=len(knees) - 1, missed=[f"layer/it at {knee:g}"]
        )


def test_values_at_a_knee_do_not_cross_it() -> None:
    model = graph([node("Relu")])
    assert covered(model, 0.0).missed == ["layer/it at 0"]
    assert covered(model, -1e-30).missed == []


def test_hard_swish_in_parts_has_the_knees_of_its_clip() -> None:
    parts = [
        helper.make_node("Add", ["x", "three"], ["moved"]),
        helper.make_node("Clip", ["moved", "zero", "six"], ["gate"], name="swish/Clip"),
        helper.make_node("Mul", ["x", "gate"], ["product"]),
        helper.make_node("Mul", ["product", "sixth"], ["y"]),
    ]
    model = graph(parts, {"zero": 0, "three": 3, "six": 6, "sixth": 1 / 6}, opset=13)
    assert covered(model, -3.1, 3.1) == Coverage(activations=1, knees=2, crossed=2, missed=[])
    assert covered(model, -2.9, 3.1).missed == ["swish/Clip at 0"]
    assert covered(model, -3.1, 2.9).missed == ["swish/Clip at 6"]


def test_what_has_no_knee_that_can_be_known() -> None:
    bounds = [helper.make_node("Mul", ["zero", "six"], ["computed"]), node("Clip", "computed", "given")]
    model = graph(bounds, {"zero": 0, "six": 6, "given": 1}, overridable=["given"])
    assert covered(model, 2.0) == Coverage(activations=0, knees=0, crossed=0, missed=[])
    assert covered(graph([node("Sigmoid")]), 2.0).activations == 0


def test_bounds_from_constant_nodes_and_nodes_without_a_name() -> None:
    six = helper.make_node("Constant", [], ["six"], value=numpy_helper.from_array(np.array(6, np.float32)))
    model = graph([six, helper.make_node("Clip", ["x", "", "six"], ["y"])])
    assert covered(model, 5.0).missed == ["y at 6"]
    assert covered(model, 7.0).missed == []


def test_two_activations_of_one_value_count_apart() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["one"], name="one"),
        helper.make_node("HardSwish", ["x"], ["other"], name="other"),
        helper.make_node("Add", ["one", "other"], ["y"]),
    ]
    found = covered(graph(nodes), -3.5)
    assert found == Coverage(activations=2, knees=3, crossed=2, missed=["other at 3"])


def test_every_input_counts() -> None:
    model = graph([node("HardSwish")])
    assert covered(model, -4.0, 0.0, 4.0).missed == []
    assert covered(model, -4.0, 0.0, 0.0).missed == ["layer/it at 3"]


def test_it_is_the_activations_own_input_that_counts() -> None:
    model = graph(
        [helper.make_node("Neg", ["x"], ["turned"]), helper.make_node("Relu", ["turned"], ["y"], name="relu")]
    )
    assert covered(model, 1.0).missed == ["relu at 0"]  # what arrives is -1 and -0.5
    assert covered(model, -1.0).missed == []


def covered_by_reference(artifact: Artifact) -> Coverage:
    assert artifact.manifest.coverage is not None
    return artifact.manifest.coverage


def test_calibrated_network_crosses_every_knee_of_its_nodes(small_artifact: Artifact) -> None:
    found = covered_by_reference(small_artifact)
    ops = small_artifact.manifest.graph.ops
    assert found.activations == ops["Relu"] + ops["HardSwish"] + ops["Clip"]
    assert found.knees == ops["Relu"] + 2 * (ops["HardSwish"] + ops["Clip"])
    assert found.missed == []


def test_trained_network_crosses_every_knee(real_data: Path, tmp_path: Path) -> None:
    """As it does on four photographs, and not on four pictures of texture alone."""
    weights = real_data / "weights" / "mobilenet_v2_0.35_224_notop.weights.h5"
    spec = ModelSpec(variant="v2", alpha=0.35, include_top=False)
    assert covered_by_reference(build(spec, weights=str(weights), out=tmp_path).artifact).missed == []


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (32, 32), (3, 5), (1, 1)])
@pytest.mark.parametrize("count", [4, 6, 12])
def test_reference_pictures_differ_from_each_other_and_in_every_pixel(size: tuple[int, int], count: int) -> None:
    shown = reference_pictures(*size, count)
    assert shown.shape == (count, *size, 3)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown, reference_pictures(*size, 12)[:count])
    assert len({picture.tobytes() for picture in shown}) == count
    assert np.array_equal(
        shown[:2], pictures(REFERENCE_PICTURES, *size, REFERENCE_SEED)[:2]
    )  # what passes are guarded on
    even = (shown[2:, :, 1:] == shown[2:, :, :-1]).all(-1)
    assert even.sum() < 0.05 * max(even.size, 1) + 1
