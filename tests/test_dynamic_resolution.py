"""``--resolution dynamic``: one file for every height and width that is a multiple of 32."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import psutil
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from mbexport import architecture
from mbexport.accuracy.checks import MODES
from mbexport.artifact import read_artifact, read_reference, write_artifact
from mbexport.bench import worker
from mbexport.bench.plan import Cell, WorkerPlan
from mbexport.bench.rows import row_of
from mbexport.bench.table import table_text
from mbexport.build import build_model, network_input
from mbexport.compare import sqnr_db
from mbexport.errors import ArtifactError, ConversionError, SpecError
from mbexport.memory import build_bytes, check_memory
from mbexport.pictures import pictures
from mbexport.pipeline import build
from mbexport.reference import Reference
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.spec import ExportOptions, ModelSpec, parse_resolution
from mbexport.validate import validate
from mbexport_cli.app import app
from tests.measured import measurement, profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact

SIZES = [(224, 224), (160, 96), (256, 320)]
TARGETS = ["ort:cpu", "openvino:cpu"]
V3 = ModelSpec(variant="small", alpha=0.35, height=None, width=None, classes=10, classifier_activation="none")
V2 = ModelSpec(variant="v2", alpha=0.35, height=None, width=None, include_top=False)
CASES = {"v3": (V3, ExportOptions()), "v2": (V2, ExportOptions(layout="nchw", batch=2))}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Do not write into them."""
    out = tmp_path_factory.mktemp("artifacts")
    return {name: build(spec, export=export, out=out).artifact for name, (spec, export) in CASES.items()}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, artifacts: dict[str, Artifact]) -> tuple[str, Artifact]:
    return request.param, artifacts[request.param]


@pytest.fixture
def artifact(artifacts: dict[str, Artifact]) -> Artifact:
    return artifacts["v3"]


def load(artifact: Artifact) -> onnx.ModelProto:
    return onnx.load(artifact.path / "model.onnx")


def shape(value: onnx.ValueInfoProto) -> list[str | int | None]:
    return [side.dim_param or side.dim_value or None for side in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"variant": "large"}, "mobilenet_v3_large_1.0_dynamic"),
        ({"variant": "small", "minimalistic": True}, "mobilenet_v3_small_minimalistic_1.0_dynamic"),
        ({"variant": "v2", "include_top": False}, "mobilenet_v2_1.0_notop_dynamic"),
    ],
)
def test_names(changes: dict[str, Any], slug: str) -> None:
    spec = ModelSpec(**changes, height=None, width=None)
    assert (spec.slug, spec.resolution, spec.size) == (slug, "dynamic", (224, 224))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ModelSpec) == spec
    assert spec.at(192, 256) == ModelSpec(**changes, height=192, width=256)


def test_what_cannot_be_dynamic() -> None:
    assert parse_resolution(" dynamic ") == (None, None)
    with pytest.raises(SpecError, match=r"V2 with its top .*--no-include-top or give --resolution 224"):
        ModelSpec(variant="v2", height=None, width=None)
    with pytest.raises(SpecError, match="both"):
        ModelSpec(variant="small", height=None)


def test_graph_is_the_static_one_with_open_sides(case: tuple[str, Artifact], tmp_path: Path) -> None:
    """Same nodes, same constants; only what is said of shapes differs."""
    name, found = case
    spec, export = CASES[name]
    fixed = load(build(spec.at(224, 224), export=export, out=tmp_path).artifact)
    graph = load(found).graph
    assert list(graph.node) == list(fixed.graph.node)
    assert list(graph.initializer) == list(fixed.graph.initializer)
    onnx.checker.check_model(load(found), full_check=True)
    known = {value.name: shape(value) for value in graph.value_info}
    for value in fixed.graph.value_info:  # what does not follow the input's size is still known
        for side, was in zip(known[value.name], shape(value), strict=True):
            assert side == was or side in {None, "height", "width"}


def test_contract_leaves_the_sides_open_and_says_what_they_may_be(case: tuple[str, Artifact]) -> None:
    name, found = case
    contract = read_artifact(found.path).manifest.input
    (value,) = load(found).graph.input
    if name == "v3":
        assert contract.shape == [None, None, None, 3]
        assert shape(value) == ["batch", "height", "width", 3]
    else:
        assert contract.shape == [2, 3, None, None]
        assert shape(value) == [2, 3, "height", "width"]
        assert found.manifest.outputs[0].shape == [2, 1280, None, None]
        assert shape(load(found).graph.output[0]) == [2, 1280, None, None]
    metadata = {entry.key: json.loads(entry.value) for entry in load(found).metadata_props}
    for document in (metadata["mbexport.input"], json.loads((found.path / "manifest.json").read_text())["input"]):
        assert document["multiple_of"] == 32
        assert "multiple of 32" in document["crop"]
    assert metadata["mbexport.spec"]["height"] is metadata["mbexport.spec"]["width"] is None


def test_artifact_of_one_size_is_laid_out_as_ever(small_artifact: Artifact) -> None:
    metadata = {entry.key: json.loads(entry.value) for entry in load(small_artifact).metadata_props}
    assert "multiple_of" not in metadata["mbexport.input"]
    assert "multiple_of" not in (small_artifact.path / "manifest.json").read_text()
    with np.load(small_artifact.path / "reference.npz") as arrays:
        assert arrays.files == ["input/input", "float32/predictions", "float64/predictions"]
    assert read_reference(small_artifact).others == ()


def test_reference_holds_three_sizes_the_base_first(case: tuple[str, Artifact]) -> None:
    _, found = case
    reference = read_reference(found)
    assert [found.manifest.input.size_of(one.inputs["input"]) for one in reference.each] == SIZES
    with np.load(found.path / "reference.npz") as arrays:
        base = [name for name in arrays.files if name.startswith(("input/", "float32/", "float64/"))]
        assert set(arrays.files) == {f"{size}{name}" for size in ("", "160x96/", "256x320/") for name in base}
        np.testing.assert_array_equal(arrays["256x320/input/input"], reference.others[1].inputs["input"])


def test_validate_tries_every_size_on_every_runtime(case: tuple[str, Artifact]) -> None:
    report = validate(case[1], TARGETS, threads=1)
    assert report.passed, report.rows
    assert report.sizes == SIZES
    assert [row.runtime for row in report.rows] == [target for target in TARGETS for _ in MODES]


@pytest.mark.parametrize("target", TARGETS)
def test_other_multiples_agree_with_keras_without_a_size(case: tuple[str, Artifact], target: str) -> None:
    """Ground truth of another kind than the build's: the network that Keras makes where height and width are None."""
    name, found = case
    truth = keras_model(CASES[name][0])
    for size in [(96, 96), (320, 160), (32, 64)]:
        answer, keras = answers(found, target, truth, size)
        assert sqnr_db(keras, answer) > 95, size  # float32 against float32


def test_at_no_multiple_of_32_it_is_another_network_than_keras_builds(artifact: Artifact) -> None:
    """Why the contract says 32: the runtime takes the picture and answers something else."""
    answer, keras = answers(artifact, "ort:cpu", keras_model(V3.at(112, 112)), (112, 112))
    assert sqnr_db(keras, answer) < 20


def keras_model(spec: ModelSpec) -> Any:
    """With the build's weights."""
    import keras

    shape = (spec.height, spec.width, 3)
    if spec.variant == "v2":
        model = keras.applications.MobileNetV2(input_shape=shape, alpha=spec.alpha, include_top=False, weights=None)
    else:
        model = keras.applications.MobileNetV3Small(
            input_shape=shape, alpha=spec.alpha, classes=spec.classes, classifier_activation=None, weights=None
        )
    model.set_weights(weights(V2 if spec.variant == "v2" else V3))
    return model


@cache
def weights(spec: ModelSpec) -> list[NDArray[np.float32]]:
    return list(build_model(spec).model.get_weights())


def answers(
    artifact: Artifact, target: str, keras_network: Any, size: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The runtime's and Keras's, channels-last, to two pictures."""
    manifest = artifact.manifest
    assert manifest.spec is not None
    shown = network_input(manifest.spec, pictures(2, *size, seed=5))
    channels_first = manifest.input.layout == "nchw"
    fed = np.ascontiguousarray(shown.transpose(0, 3, 1, 2)) if channels_first else shown
    engine, _, device = target.partition(":")
    options = SessionOptions(batch=2, threads=1, size=size)
    with load_engine(engine).open(artifact.model_path(target), device, options) as session:
        answer = session.run({"input": fed})[manifest.outputs[0].name]
    if channels_first:
        answer = answer.transpose(0, 2, 3, 1)
    return answer, np.asarray(keras_network(shown, training=False))


def mean_over_49(model: onnx.ModelProto) -> None:
    """Right at 224x224, where the last feature map is 7x7; elsewhere it runs, and is wrong."""
    pool = [node for node in model.graph.node if node.op_type in {"ReduceMean", "GlobalAveragePool"}][-1]
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    count = numpy_helper.from_array(np.array([1 / 49], np.float32), "count")
    model.graph.initializer.extend([axes, count])
    place = list(model.graph.node).index(pool)
    scaled = helper.make_node("Mul", ["sum", "count"], list(pool.output))
    pool.CopyFrom(helper.make_node("ReduceSum", [pool.input[0], "axes"], ["sum"], keepdims=1))
    model.graph.node.insert(place + 1, scaled)


def fixed_map(model: onnx.ModelProto) -> None:
    """The last feature map reshaped to what it is at 224x224; elsewhere it does not run."""
    pool = [node for node in model.graph.node if node.op_type in {"ReduceMean", "GlobalAveragePool"}][-1]
    target = numpy_helper.from_array(np.array([0, 0, 7, 7]), "map")
    model.graph.initializer.append(target)
    place = list(model.graph.node).index(pool)
    model.graph.node.insert(place, helper.make_node("Reshape", [pool.input[0], "map"], ["fixed"]))
    pool.input[0] = "fixed"


@pytest.mark.parametrize("damage", [mean_over_49, fixed_map])
def test_constant_that_depends_on_the_size_fails(
    damage: Callable[[onnx.ModelProto], None], artifact: Artifact, tmp_path: Path
) -> None:
    model = load(artifact)
    damage(model)
    del model.graph.value_info[:]
    reference = read_reference(artifact)
    base = Reference(reference.inputs, reference.keras_float32, reference.keras_float64, reference.others[:1])
    broken = write_artifact(tmp_path, artifact.manifest, {"model.onnx": model.SerializeToString()}, base)
    report = validate(broken, TARGETS, threads=1)
    assert not any(row.passed for row in report.rows)
    assert all("at 160x96" in str(row.reason) for row in report.rows)


def test_build_finds_such_a_constant_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx_ir as ir

    from mbexport import finish
    from mbexport.graph import free_size

    honest = free_size.free_size

    def wrong(model: ir.Model, layout: Any) -> None:
        proto = ir.to_proto(model)
        mean_over_49(proto)
        model.graph = ir.from_proto(proto).graph
        honest(model, layout)

    monkeypatch.setattr(finish, "free_size", wrong)
    with pytest.raises(ConversionError, match="does not agree with Keras on predictions at 160x96: SQNR"):
        build(V3, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reference_of_one_size_proves_too_little(artifact: Artifact, tmp_path: Path) -> None:
    reference = read_reference(artifact)
    alone = Reference(reference.inputs, reference.keras_float32, reference.keras_float64)
    model = (artifact.path / "model.onnx").read_bytes()
    with pytest.raises(ArtifactError, match="holds one size"):
        validate(write_artifact(tmp_path, artifact.manifest, {"model.onnx": model}, alone), TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_bench_feeds_the_base_size_and_says_so(target: str, artifact: Artifact) -> None:
    cell = Cell(artifact=str(artifact.path), sha256="aa", target=target, mode="parity", threads=1, batch=1)
    found = worker.measure(WorkerPlan(cell=cell, min_samples=2, min_time_s=0, max_time_s=9))
    assert found.input_size == (224, 224)
    row = measurement(input_size=found.input_size)
    assert row_of("x", row).input_size == (224, 224)
    text = table_text({Path("x.json"): profile(row, artifact=V3.slug)})
    assert f"[{V3.slug}](x.json) at 224x224 |" in text
    assert ") at " not in table_text({Path("x.json"): profile(measurement())})


def test_memory_counts_the_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A static batch that can be run at 224x224 and not at 256x320, where validate runs it too."""
    assert build_bytes(V3) == build_bytes(V3.at(224, 224))  # 8 pictures to calibrate outweigh 4 larger references
    available = 2**33
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    batch = available // (2 * 4 * architecture.largest_activation_elements(V3.at(224, 224)))
    check_memory(V3.at(224, 224), batch)
    with pytest.raises(SpecError, match="--batch"):
        check_memory(V3, batch)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", ["build", "run", "info"])
def test_cli_refuses_v2_with_its_top(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(command, "--variant", "v2", "--resolution", "dynamic", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "--no-include-top" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_cli_info_says_at_which_size_it_counts() -> None:
    options = ("info", "--variant", "large", "--json")
    dynamic = json.loads(invoke(*options, "--resolution", "dynamic").stdout)
    fixed = json.loads(invoke(*options).stdout)
    assert (dynamic["spec"]["height"], dynamic["spec"]["width"]) == (None, None)
    for key in ("macs", "macs_at", "parameters", "trainable_parameters"):
        assert dynamic[key] == fixed[key]
    assert dynamic["macs_at"] == [224, 224]
    assert (
        "multiply-accumulates are those at 224x224"
        in invoke("info", "--variant", "large", "--resolution", "dynamic").stdout
    )


def test_cli_validate_names_the_sizes(artifact: Artifact) -> None:
    done = invoke("validate", str(artifact.path), "--runtime", "ort:cpu", "--threads", "1")
    assert done.exit_code == 0
    assert "the worst of 224x224, 160x96, 256x320" in done.stdout
    document = json.loads(invoke("validate", str(artifact.path), "--runtime", "ort:cpu", "--json").stdout)
    assert document["sizes"] == [list(size) for size in SIZES]
    assert [row["mode"] for row in document["rows"]] == list(MODES)
