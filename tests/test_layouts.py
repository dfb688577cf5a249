"""Serving layouts: each parsed by what the server parses it with, and run by the engine that serves it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jsonschema
import msgspec
import numpy as np
import pytest
from google.protobuf import text_format

from mbexport import hardware
from mbexport.artifact import MANIFEST, read_artifact, read_reference
from mbexport.bundle.layouts.network import network_of
from mbexport.bundle.layouts.write import Layout, write_layout
from mbexport.errors import InputError, OutputError, UnprovenError
from mbexport.pipeline import build
from mbexport.profiles import write_profile
from mbexport.spec import ExportOptions, ModelSpec
from tests.measured import HARDWARE, measurement, profile, replicate
from tests.test_bundle import wrong
from tests.test_cli_results import invoke
from tests.tiny import TinyNetwork, tiny_artifact
from tests.tuned import tuned

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.profile import LatencyProfile, Measurement

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "ovms.schema.json").read_text())
LAYOUTS = get_args(Layout)


@pytest.fixture(scope="module")
def laid_out(small_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout of a small V3, each in a folder of its name. Do not write into them."""
    folder = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        write_layout([small_artifact], folder / layout, layout, ["ort:cpu"])
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def triton_config(path: Path) -> Any:
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def of_openvino(path: Path, pictures: Any, settings: dict[str, str] | None = None) -> Any:
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", {**(settings or {}), "INFERENCE_PRECISION_HINT": "f32"})
    batch = compiled.input(0).partial_shape[0]
    size = len(pictures) if batch.is_dynamic else batch.get_length()
    parts = [compiled(pictures[at : at + size])[0] for at in range(0, len(pictures), size)]
    return np.concatenate(parts)


def test_triton(laid_out: Path, small_artifact: Artifact) -> None:
    import onnxruntime as ort
    import openvino as ov

    slug, reference = small_artifact.manifest.slug, read_reference(small_artifact)
    root = laid_out / "triton"
    expected = reference.keras_float32["predictions"]
    assert {path.name for path in root.iterdir() if path.is_dir()} == {f"{slug}_onnxruntime", f"{slug}_openvino"}
    for folder in filter(Path.is_dir, root.iterdir()):
        config = triton_config(folder / "config.pbtxt")
        assert config.name == folder.name
        assert folder.name.endswith(config.backend)
        assert config.instance_group[0].kind == config.instance_group[0].KIND_CPU
        if config.backend == "onnxruntime":
            session = ort.InferenceSession(folder / "1" / "model.onnx")
            (wanted,) = session.get_inputs()
            assert [*config.input[0].dims] == wanted.shape[1:], "the batch is Triton's own where there is one"
            assert config.max_batch_size == 1
            (answers,) = session.run([config.output[0].name], {config.input[0].name: reference.inputs["input"]})
        else:
            wanted = ov.Core().read_model(folder / "1" / "model.xml").inputs[0]
            assert [*config.input[0].dims] == [*wanted.shape]
            assert wanted.names == {config.input[0].name}
            assert config.max_batch_size == 0
            answers = of_openvino(folder / "1" / "model.xml", reference.inputs["input"])
        assert config.input[0].data_type == 11, "TYPE_FP32 in model_config.proto"
        assert [*config.output[0].dims][-1] == expected.shape[1]
        np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_ovms(laid_out: Path, small_artifact: Artifact) -> None:
    root, reference = laid_out / "ovms", read_reference(small_artifact)
    document = json.loads((root / "config.json").read_text())
    jsonschema.validate(document, SCHEMA)
    (entry,) = document["model_config_list"]
    versions = root / entry["config"]["base_path"]
    assert [path.name for path in versions.iterdir() if path.is_dir()] == ["1"], "versions are positive numbers"
    answers = of_openvino(versions / "1" / "model.xml", reference.inputs["input"], entry["config"]["plugin_config"])
    np.testing.assert_allclose(answers, reference.keras_float32["predictions"], atol=1e-5)


FORMS: dict[str, tuple[ModelSpec, dict[str, Any]]] = {
    "uint8 nchw": (ModelSpec(variant="v2", alpha=0.35, height=64, width=96), {"input_type": "uint8", "layout": "nchw"}),
    "features of any size": (ModelSpec(variant="v2", alpha=0.35, height=None, width=None, include_top=False), {}),
    "opset 13, batch 2": (
        ModelSpec(variant="small", minimalistic=True, height=64, width=64),
        {"opset": 13, "batch": 2},
    ),
}
TRITONS = {"uint8": 2, "float32": 11}
"""TYPE_UINT8 and TYPE_FP32 in model_config.proto."""


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_served(form: str, tmp_path: Path) -> None:
    import onnxruntime as ort

    spec, export = FORMS[form]
    artifact = build(spec, export=ExportOptions(**export), out=tmp_path).artifact
    for layout in ("triton", "ovms", "openvino-ir"):
        write_layout([artifact], tmp_path / layout, layout, ["ort:cpu"])
    own, output = artifact.manifest.input, artifact.manifest.outputs[0]
    document = json.loads((tmp_path / "ovms" / "config.json").read_text())
    jsonschema.validate(document, SCHEMA)
    (served,) = (tmp_path / "ovms").rglob("model.xml")
    triton = {name: tmp_path / "triton" / f"{artifact.manifest.slug}_{name}" for name in ("onnxruntime", "openvino")}
    for reference in read_reference(artifact).each:
        pictures, expected = reference.inputs[own.name], reference.keras_float32[output.name]
        session = ort.InferenceSession(triton["onnxruntime"] / "1" / "model.onnx")
        size = own.shape[0] or len(pictures)
        parts = [pictures[at : at + size] for at in range(0, len(pictures), size)]
        answers = {"triton's onnxruntime": np.concatenate([session.run(None, {own.name: part})[0] for part in parts])}
        for path in (triton["openvino"] / "1" / "model.xml", served, tmp_path / "openvino-ir" / "model.xml"):
            answers[str(path)] = of_openvino(path, pictures)
        for name, found in answers.items():
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), err_msg=name)
    for backend, folder in triton.items():
        config = triton_config(folder / "config.pbtxt")
        assert config.input[0].data_type == TRITONS[own.type]
        batch = [] if backend == "onnxruntime" and own.shape[0] is None else [own.shape[0] or 1]
        for tensor, shape in ((config.input[0], own.shape), (config.output[0], output.shape)):
            assert [*tensor.dims] == [*batch, *(-1 if side is None else side for side in shape[1:])]


def test_the_schema_knows_a_misspelling(laid_out: Path) -> None:
    document = json.loads((laid_out / "ovms" / "config.json").read_text())
    document["model_config_list"][0]["config"]["nireqs"] = 1
    with pytest.raises(jsonschema.ValidationError, match="nireqs"):
        jsonschema.validate(document, SCHEMA)


def test_ir_is_not_narrowed(laid_out: Path, small_artifact: Artifact) -> None:
    import openvino as ov

    root, reference = laid_out / "openvino-ir", read_reference(small_artifact)
    text = (root / "model.xml").read_text()
    assert "f32" in text
    assert not re.search(r"element_type=\"f16\"", text)
    own = of_openvino(small_artifact.path / "model.onnx", reference.inputs["input"])
    np.testing.assert_array_equal(of_openvino(root / "model.xml", reference.inputs["input"]), own)
    assert ov.Core().read_model(root / "model.xml").inputs[0].partial_shape[0].is_dynamic


def test_plain(laid_out: Path, small_artifact: Artifact) -> None:
    assert files(laid_out / "plain") == {"model.onnx", "contract.json", ".mbexport.json"}
    assert (laid_out / "plain" / "model.onnx").read_bytes() == (small_artifact.path / "model.onnx").read_bytes()
    contract = json.loads((laid_out / "plain" / "contract.json").read_text())
    assert contract["input"]["name"] == small_artifact.manifest.input.name
    assert contract["input"]["range"] == [*small_artifact.manifest.input.range]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bytes_again_in_its_place(
    laid_out: Path, small_artifact: Artifact, tmp_path: Path, layout: Layout
) -> None:
    for _ in range(2):  # one that is there is replaced
        write_layout([small_artifact], tmp_path / "out", layout, ["ort:cpu"])
    assert files(tmp_path / "out") == files(laid_out / layout)
    for name in files(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (laid_out / layout / name).read_bytes(), name


def rows(best_threads: int, best_batch: int) -> list[Measurement]:
    """Of which the one with these figures has the most pictures a second."""
    slow, fast = replicate([2_000_000] * 300), replicate([2_000_000] * 300, throughput_per_s=900.0)
    return [
        measurement(),
        measurement(threads=best_threads, batch=best_batch, replicates=[fast] * 3),
        measurement(threads=9, batch=16, scenario="offline", replicates=[fast] * 3),
        measurement(runtime="ort:cuda", threads=8, batch=32, replicates=[fast] * 3),
        measurement(threads=7, batch=64, replicates=[slow, slow, fast]),
    ]


def measured_at(folder: Path, artifact: Artifact, *found: LatencyProfile) -> Path:
    for number, each in enumerate(found):
        own = msgspec.structs.replace(each, artifact=artifact.manifest.slug, artifact_sha256=artifact.sha256)
        write_profile(folder / f"machine-{number}" / f"{own.artifact}.json", own)
    return folder


def test_measured_threads_and_batches(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, TinyNetwork())
    places = measured_at(tmp_path / "profiles", artifact, profile(*rows(4, 8)))
    report = write_layout([artifact], tmp_path / "t", "triton", ["ort:cpu"], profiles=[places])
    assert report.measured_on == HARDWARE.slug, "the only machine that was measured"
    config = triton_config(tmp_path / "t" / "tiny_onnxruntime" / "config.pbtxt")
    assert config.max_batch_size == 8
    assert [*config.dynamic_batching.preferred_batch_size] == [8]
    assert config.parameters["intra_op_thread_count"].string_value == "4"
    other = triton_config(tmp_path / "t" / "tiny_openvino" / "config.pbtxt")
    assert [*other.input[0].dims] == [1, 8, 8, 3], "OpenVINO was not measured"
    assert {name: value.string_value for name, value in other.parameters.items()} == {
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
    }


def test_a_static_batch_stays(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, TinyNetwork(), model=TinyNetwork().onnx_model(2).SerializeToString(), batch=2)
    write_layout([artifact], tmp_path / "t", "triton", ["ort:cpu"])
    for backend in ("onnxruntime", "openvino"):
        config = triton_config(tmp_path / "t" / f"tiny_{backend}" / "config.pbtxt")
        assert config.max_batch_size == 0
        assert [*config.input[0].dims] == [2, 8, 8, 3]
        assert [*config.output[0].dims] == [2, 5]


def test_a_tuned_configuration_comes_first(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, TinyNetwork())
    found = tuned()
    configuration = msgspec.structs.replace(
        found.configuration,
        sha256=artifact.sha256,
        model_sha256=artifact.manifest.files["model.onnx"],
        runtime="openvino:cpu",
        threads=3,
        options={"ENABLE_CPU_PINNING": "NO"},
    )
    own = profile(
        measurement(runtime="openvino:cpu", threads=4),
        tuned=[msgspec.structs.replace(found, configuration=configuration)],
        artifact_sha256=artifact.sha256,
    )
    assert network_of(artifact, [own]).services["openvino"].settings == {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": "3",
        "ENABLE_CPU_PINNING": "NO",
    }


def test_which_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact(tmp_path, TinyNetwork())
    other = msgspec.structs.replace(HARDWARE, cpu="Intel Xeon", cpu_family=6)
    places = measured_at(tmp_path / "profiles", artifact, profile(*rows(4, 8)), profile(*rows(2, 2), hardware=other))

    def threads(**wanted: Any) -> tuple[str | None, str]:
        report = write_layout([artifact], tmp_path / "t", "triton", ["ort:cpu"], profiles=[places], **wanted)
        config = triton_config(tmp_path / "t" / "tiny_onnxruntime" / "config.pbtxt")
        return report.measured_on, config.parameters["intra_op_thread_count"].string_value

    assert threads() == (None, ""), "of several, none is this one"
    assert threads(machine=HARDWARE.slug) == (HARDWARE.slug, "4")
    monkeypatch.setattr(hardware, "detect", lambda: other)
    assert threads() == (other.slug, "2")
    with pytest.raises(InputError, match=f"of nowhere; measured on: .*{other.slug}"):
        threads(machine="nowhere")


def test_several_artifacts(small_artifact: Artifact, tmp_path: Path) -> None:
    two = [small_artifact, tiny_artifact(tmp_path, TinyNetwork())]
    write_layout(two, tmp_path / "o", "ovms", ["ort:cpu"])
    document = json.loads((tmp_path / "o" / "config.json").read_text())
    assert [entry["config"]["name"] for entry in document["model_config_list"]] == [one.manifest.slug for one in two]
    write_layout(two, tmp_path / "p", "plain", ["ort:cpu"])
    top = {name.split("/")[0] for name in files(tmp_path / "p")}
    assert top == {one.manifest.slug for one in two} | {".mbexport.json"}
    write_layout(two[1:], tmp_path / "p", "plain", ["ort:cpu"])
    assert files(tmp_path / "p") == {"model.onnx", "contract.json", ".mbexport.json"}, "fewer take its place"
    with pytest.raises(InputError, match="one of a name"):
        write_layout([small_artifact, small_artifact], tmp_path / "q", "plain", ["ort:cpu"])


def test_what_fails_is_not_laid_out(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, TinyNetwork(), model=wrong(TinyNetwork().onnx_model()))
    with pytest.raises(UnprovenError, match="nothing was written"):
        write_layout([artifact], tmp_path / "t", "triton", ["ort:cpu"])
    assert not (tmp_path / "t").exists()


def test_a_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, TinyNetwork())
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "own" / "deep" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"deep/notes\.txt, which no layout put there"):
        write_layout([artifact], tmp_path / "own", "plain", ["ort:cpu"])
    with pytest.raises(OutputError, match="is a file; choose another place"):
        write_layout([artifact], tmp_path / "own" / "deep" / "notes.txt", "plain", ["ort:cpu"])
    assert files(tmp_path / "own") == {"deep/notes.txt"}
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with pytest.raises(OutputError, match="is a link"):
        write_layout([artifact], tmp_path / "link", "plain", ["ort:cpu"])
    with pytest.raises(OutputError, match="is the working folder"):
        write_layout([artifact], Path(), "plain", ["ort:cpu"])


def test_the_command_line(small_artifact: Artifact, tmp_path: Path) -> None:
    usual = ["bundle", str(small_artifact.path), "-o", str(tmp_path / "t"), "--runtime", "ort:cpu"]
    done = invoke(*usual, "--layout", "triton", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["layout"] == "triton"
    assert set(document["files"]) == files(tmp_path / "t")
    shown = invoke(*usual, "--layout", "triton")
    assert "config.pbtxt" in shown.stdout
    for wrongly, text in (
        (["--layout", "tritton"], "triton"),
        (["--layout", "triton", "--sign", "key.pem"], "a layout is not signed"),
        (["--hardware", "x"], "--hardware goes with --layout"),
        (["--layout", "plain", "--hardware", "x"], "no profile of these artifacts is of x"),
    ):
        done = invoke(*usual, *wrongly)
        assert done.exit_code == 2
        assert text in done.stderr
        assert done.stdout == ""


def test_int8_takes_each_engines_own_file(small_artifact: Artifact, tmp_path: Path) -> None:
    """Two files of one artifact: here both of float32, for only where they go is asked."""
    import shutil

    shutil.copytree(small_artifact.path, tmp_path / "two")
    shutil.copyfile(tmp_path / "two" / "model.onnx", tmp_path / "two" / "model_openvino.onnx")
    manifest = json.loads((tmp_path / "two" / MANIFEST).read_text())
    manifest["files"]["model_openvino.onnx"] = manifest["files"]["model.onnx"]
    manifest["models"]["openvino"] = "model_openvino.onnx"
    (tmp_path / "two" / MANIFEST).write_text(json.dumps(manifest))
    services = network_of(read_artifact(tmp_path / "two"), []).services
    assert {engine: service.model.name for engine, service in services.items()} == {
        "ort": "model.onnx",
        "openvino": "model_openvino.onnx",
    }
