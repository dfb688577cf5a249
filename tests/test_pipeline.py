from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest

from mbexport.artifact import read_artifact, read_reference
from mbexport.build import network_input
from mbexport.errors import ConversionError, OutputError, SpecError, WeightsError
from mbexport.pictures import pictures, reference_pictures
from mbexport.pipeline import build
from mbexport.runtimes import resolve_targets
from mbexport.spec import ExportOptions, ModelSpec
from mbexport.validate import validate
from tests.conftest import SMALL

if TYPE_CHECKING:
    from mbexport.artifact import Artifact

RUNTIMES = ["ort:cpu", "openvino:cpu"]


def ops(artifact: Artifact) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(artifact.path / "model.onnx").graph.node)


def assert_passes(artifact: Artifact) -> None:
    report = validate(read_artifact(artifact.path), resolve_targets(RUNTIMES))
    assert report.passed, report.rows
    assert {row.runtime for row in report.rows} == set(RUNTIMES)


CELLS = [
    (ModelSpec(variant="v2", alpha=0.35, height=96, width=96), ExportOptions(), 1),
    (ModelSpec(variant="v2", alpha=0.6, height=33, width=70, include_top=False), ExportOptions(batch=3), 2),
    (ModelSpec(variant="large", alpha=0.75, height=64, width=64, classes=3), ExportOptions(layout="nchw"), 0),
    (
        ModelSpec(variant="small", alpha=1.25, height=96, width=64, include_top=False, pooling="max"),
        ExportOptions(opset=18),
        1,
    ),
    (
        ModelSpec(variant="small", minimalistic=True, height=64, width=64, classifier_activation="none"),
        ExportOptions(layout="nchw", batch=2, opset=13),
        0,
    ),
    (ModelSpec(variant="small", height=35, width=67, include_top=False), ExportOptions(layout="nchw", opset=14), 0),
    (ModelSpec(variant="v2", alpha=0.35, height=32, width=32, classes=2), ExportOptions(), 1),
]


@pytest.mark.parametrize(("spec", "export", "transposes"), CELLS, ids=lambda value: getattr(value, "slug", None))
def test_cell(spec: ModelSpec, export: ExportOptions, transposes: int, tmp_path: Path) -> None:
    artifact = build(spec, export=export, out=tmp_path).artifact
    found = ops(artifact)
    assert found["Transpose"] == transposes
    assert found["Pad"] == found["BatchNormalization"] == found["Identity"] == 0
    assert not any(entry.skipped for entry in artifact.manifest.graph.passes)
    assert_passes(artifact)


def test_canonical_v3_large() -> None:
    """The hand-made canonical graph has 144 nodes, Rescaling's scale among them, and one Transpose."""
    import keras

    from mbexport.convert import onnx_from_keras
    from mbexport.graph import simplify

    model = keras.applications.MobileNetV3Large(input_shape=(224, 224, 3), weights=None)
    feeds = {"input": pictures(1, 224, 224, 1).astype(np.float32)}
    graph, report = simplify(onnx_from_keras(model, opset=17), feeds, limit_db=60.0)
    kinds = Counter(type(layer).__name__ for layer in model.layers)
    assert report.nodes == 143
    assert report.ops["Transpose"] == 1
    assert report.ops["Conv"] + report.ops["Gemm"] == kinds["Conv2D"] + kinds["DepthwiseConv2D"]
    assert report.ops["Gemm"] == 1  # the classifier
    assert report.ops["HardSwish"] == kinds["Activation"] - 1  # but for the softmax
    assert report.ops["Clip"] == 8  # the gates of V3 Large's squeeze-excite blocks (Howard et al. 2019, table 1)
    assert report.nodes_before > 400
    assert not [value.name for value in graph.graph.initializers.values() if not value.uses()]


@pytest.mark.parametrize(
    ("constructor", "alpha", "most_nodes"),
    [("MobileNetV3Large", 0.75, 145), ("MobileNetV3Small", 1.0, 126), ("MobileNetV2", 1.0, 104)],
)
def test_nodes_stay_few_and_are_named_after_layers(constructor: str, alpha: float, most_nodes: int) -> None:
    """The bars are those of a graph made by hand; in Netron the names are the architecture."""
    import keras

    from mbexport.convert import onnx_from_keras
    from mbexport.graph import simplify
    from mbexport.layer_names import layer_labels

    network = getattr(keras.applications, constructor)(input_shape=(96, 96, 3), alpha=alpha, weights=None)
    feeds = {"input": pictures(1, 96, 96, 1).astype(np.float32)}
    graph, report = simplify(onnx_from_keras(network, opset=17), feeds, limit_db=60.0)
    assert report.nodes <= most_nodes
    labels = set(layer_labels(network).values())
    assert [node.name for node in graph.graph if (node.name or "").rpartition("/")[0] not in labels] == []


def test_artifact_says_what_it_is(small_artifact: Artifact) -> None:
    manifest = json.loads((small_artifact.path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.onnx", "reference.npz", "trace.npz"}  # no labels: it has 20 classes
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((small_artifact.path / name).read_bytes()).hexdigest() == digest
    assert manifest["weights"] == {
        "kind": "random",
        "seed": 0,
        "file": None,
        "sha256": None,
        "note": "random weights: for graph and latency only",
    }
    model = onnx.load(small_artifact.path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert msgspec.convert(metadata["mbexport.spec"], ModelSpec) == SMALL
    assert metadata["mbexport.input"]["range"] == [0.0, 255.0]
    assert metadata["mbexport.input"]["layout"] == "nhwc"
    assert str(small_artifact.path) not in str(metadata)


def test_reference_is_keras_in_two_precisions(small_artifact: Artifact) -> None:
    reference = read_reference(small_artifact)
    shown = network_input(SMALL, reference_pictures(64, 64))
    np.testing.assert_array_equal(reference.inputs["input"], shown)
    single, double = reference.keras_float32["predictions"], reference.keras_float64["predictions"]
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-6)
    assert not np.array_equal(single, double)


def test_a_head_of_two_classes_is_held_to_the_limit_of_all_others(tmp_path: Path) -> None:
    artifact = build(msgspec.structs.replace(SMALL, classes=2), out=tmp_path).artifact
    report = validate(artifact, RUNTIMES)
    assert report.passed, report.rows
    assert report.batches == [12, 1]
    for row in report.rows:
        if row.precision.effective == "f32":
            assert row.threshold_origin.startswith("12 dB under Keras's own float32")


def test_v2_contract(tmp_path: Path) -> None:
    spec = ModelSpec(variant="v2", alpha=0.35, height=32, width=32)
    contract = build(spec, out=tmp_path).artifact.manifest.input
    assert contract.range == (-1.0, 1.0)
    assert (contract.mean, contract.scale) == (127.5, 127.5)


def test_building_again_replaces(tmp_path: Path) -> None:
    first = build(SMALL, seed=1, out=tmp_path).artifact
    second = build(SMALL, seed=2, out=tmp_path).artifact
    assert first.path == second.path
    assert first.sha256 != second.sha256
    assert read_artifact(second.path).sha256 == second.sha256
    assert [path.name for path in tmp_path.iterdir()] == [SMALL.slug]


def test_graph_that_disagrees_with_keras_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that gets one kernel wrong: every pass keeps its result, only the comparison with Keras can tell."""
    from mbexport import convert, network

    honest = convert.onnx_from_keras

    def wrong(model: Any, **options: Any) -> onnx.ModelProto:
        proto = honest(model, **options)
        stored = next(array for array in proto.graph.initializer if array.name == "expanded_conv_depthwise/kernel:0")
        stored.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(stored) * np.float32(1.001), stored.name)
        )
        return proto

    monkeypatch.setattr(network, "onnx_from_keras", wrong)
    with pytest.raises(ConversionError, match="does not agree with Keras on predictions: SQNR"):
        build(SMALL, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_refusals_come_before_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / SMALL.slug).mkdir()
    (tmp_path / SMALL.slug / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="no part of an artifact"):
        build(SMALL, out=tmp_path)
    with pytest.raises(OutputError):
        build(SMALL, out=tmp_path / "file")
    with pytest.raises(SpecError):
        build(msgspec.structs.replace(SMALL, height=100_000, width=100_000), out=tmp_path / "new")
    with pytest.raises(WeightsError):
        build(SMALL, weights=str(tmp_path / "absent.h5"), out=tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", SMALL.slug]


def test_real_v3_small(real_data: Path, tmp_path: Path) -> None:
    weights = real_data / "weights" / "mobilenet_v3_small_1.0_224.weights.h5"
    artifact = build(ModelSpec(variant="small"), weights=str(weights), out=tmp_path).artifact
    report = validate(read_artifact(artifact.path), resolve_targets(RUNTIMES))
    assert report.passed
    parity = [row for row in report.rows if row.mode == "parity"]
    assert len(parity) == len(RUNTIMES)
    assert all(row.precision.effective == "f32" and (row.sqnr_db or 0) >= 100 for row in parity)
    assert artifact.manifest.weights.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_build_result_is_frozen(small_artifact: Artifact) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_artifact.path = Path("/elsewhere")  # type: ignore[misc]


def test_opset_13_has_a_file_for_each_engine(tmp_path: Path) -> None:
    """No HardSwish before 14: ONNX Runtime recognises it in two operators, OpenVINO in four."""
    artifact = build(SMALL, export=ExportOptions(opset=13), out=tmp_path).artifact
    found = {}
    for target in ("ort:cpu", "openvino:cpu"):
        graph = onnx.load(artifact.model_path(target)).graph
        found[target] = Counter(node.op_type for node in graph.node)
    gates, swishes = 9, 19  # squeeze-excite blocks and hard swishes of V3 Small (Howard et al. 2019, table 2)
    assert (found["ort:cpu"]["HardSigmoid"], found["ort:cpu"]["Clip"]) == (swishes, gates)
    assert (found["openvino:cpu"]["HardSigmoid"], found["openvino:cpu"]["Clip"]) == (0, gates + swishes)
    each = {"model.onnx", "model_openvino.onnx", "trace.npz", "trace_openvino.npz"}
    assert set(artifact.manifest.files) == {*each, "reference.npz"}
    assert_passes(artifact)


def test_from_opset_14_on_one_file_serves_both(small_artifact: Artifact) -> None:
    assert set(small_artifact.manifest.models.values()) == {"model.onnx"}
