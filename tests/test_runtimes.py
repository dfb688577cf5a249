from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.errors import ArtifactError, EngineError, InputError, MissingDeviceError, MissingPackageError
from mbexport.runtimes import ENGINES, SessionOptions, all_devices, load_engine, resolve_targets
from tests.tiny import TinyNetwork, pictures

if TYPE_CHECKING:
    from pathlib import Path

CPU_ENGINES = sorted(ENGINES)
EVERY_OUTPUT = TinyNetwork(outputs=("features", "logits", "probabilities"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(EVERY_OUTPUT.onnx_model(), path)
    return path


def unreshapable(tmp_path: Path) -> Path:
    """A valid graph that no batch of one fits: six numbers into rows of four."""
    rows = numpy_helper.from_array(np.array([-1, 4]), "rows")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_batch", width])
        for name, width in (("input", 6), ("output", 4))
    ]
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["input", "rows"], ["output"])], "g", ends[:1], ends[1:], [rows]
    )
    path = tmp_path / "unreshapable.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_outputs_come_by_name_and_are_right(engine: str, model: Path) -> None:
    feeds = pictures(2)
    truth = EVERY_OUTPUT.answers(feeds, np.float64)
    with load_engine(engine).open(model, "cpu", SessionOptions(batch=2)) as session:
        answers = session.run({"input": feeds})
    assert list(answers) == ["features", "logits", "probabilities"]
    for name, answer in answers.items():
        np.testing.assert_allclose(answer, truth[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_later_runs_leave_earlier_answers_alone(engine: str, model: Path) -> None:
    first, second = pictures(2)[:1], pictures(2)[1:]
    with load_engine(engine).open(model, "cpu", SessionOptions()) as session:
        answers = session.run({"input": first})
        kept = {name: answer.copy() for name, answer in answers.items()}
        session.run({"input": second})
    for name, answer in answers.items():
        np.testing.assert_array_equal(answer, kept[name])


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_bound_call_computes_from_the_feeds(engine: str, model: Path) -> None:
    with load_engine(engine).open(model, "cpu", SessionOptions()) as session:
        call = session.bind({"input": pictures(1)})
        call()
        call()  # may be called again and again
        with pytest.raises((EngineError, RuntimeError, ValueError)):
            session.bind({"input": pictures(2)[:, :4]})()  # another height: the feeds really reach the network


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_bound_call_keeps_its_feeds_alive(engine: str, model: Path) -> None:
    with load_engine(engine).open(model, "cpu", SessionOptions()) as session:
        feed = pictures(1)
        held = weakref.ref(feed)
        call = session.bind({"input": feed})
        del feed
        gc.collect()
        assert held() is not None
        call()
        del call
        gc.collect()
        assert held() is None


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_parity_computes_in_float32_on_the_cpu_alone(engine: str, model: Path) -> None:
    with load_engine(engine).open(model, "cpu", SessionOptions(mode="parity", threads=1)) as session:
        facts = session.facts()
    assert facts.precision == "f32"
    assert list(facts.placement) == ["cpu"]
    # Convolution, hard-swish, mean, matrix, softmax: engines fuse and split, but this much work is left.
    assert 4 <= facts.placement["cpu"] <= 16
    assert load_engine(engine).package in facts.versions
    assert "1" in facts.options.values()


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_engine_failures_are_errors_of_this_project_and_silent(
    engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        with load_engine(engine).open(unreshapable(tmp_path), "cpu", SessionOptions()) as session:
            session.run({"input": np.zeros((1, 6), np.float32)})

    with pytest.raises(EngineError, match=f"{engine}:cpu") as caught:
        run()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("fault", ["empty", "text", "truncated"])
def test_corrupt_model_is_an_artifact_error(
    engine: str, fault: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = model.read_bytes()
    model.write_bytes({"empty": b"", "text": b"not a model", "truncated": whole[: len(whole) // 2]}[fault])
    with pytest.raises(ArtifactError, match=r"tiny\.onnx.*uild the artifact again"):
        load_engine(engine).open(model, "cpu", SessionOptions())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_operator_that_the_engine_lacks_is_an_engine_error(engine: str, tmp_path: Path) -> None:
    broken = TinyNetwork().onnx_model()
    broken.graph.node[2].op_type = "NoSuchOperator"
    path = tmp_path / "tiny.onnx"
    path.write_bytes(broken.SerializeToString())
    with pytest.raises(EngineError, match="NoSuchOperator"):
        load_engine(engine).open(path, "cpu", SessionOptions())


@pytest.mark.parametrize(
    ("engine", "install"), [("ort", "pip install onnxruntime-gpu"), ("openvino", "pip install 'mbexport[openvino]'")]
)
def test_engine_that_is_not_installed(engine: str, install: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = load_engine(engine)
    monkeypatch.setitem(sys.modules, runtime.package, None)
    with pytest.raises(MissingPackageError, match=f"{runtime.package} is not installed") as caught:
        runtime.open(model, "cpu", SessionOptions())
    assert install in str(caught.value)
    devices = runtime.devices()
    assert f"{engine}:cpu" in {status.target for status in devices}
    for status in devices:
        assert not status.available
        assert (status.detail, status.remedy) == (f"{runtime.package} is not installed", install)
    with pytest.raises(MissingDeviceError, match="not installed"):
        resolve_targets([f"{engine}:cpu"])
    assert all(not target.startswith(engine) for target in resolve_targets(None))


def test_all_that_is_here_leaves_out_auto() -> None:
    targets = resolve_targets(None)
    assert {"ort:cpu", "openvino:cpu"} <= set(targets)
    assert "openvino:auto" not in targets
    assert resolve_targets(["openvino:auto", "OpenVINO:AUTO"]) == ["openvino:auto"]


def test_absent_devices_are_listed_with_why_and_how() -> None:
    devices = {status.target: status for status in all_devices()}
    assert {"ort:cpu", "ort:cuda", "openvino:cpu", "openvino:gpu", "openvino:npu", "openvino:auto"} <= set(devices)
    for status in devices.values():
        assert status.detail
        assert status.available or status.remedy


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_unknown_device_names_the_known_ones(engine: str) -> None:
    with pytest.raises(InputError, match=f"known: .*{engine}:cpu"):
        resolve_targets([f"{engine}:tpu"])


def test_misspelt_runtime_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean openvino:cpu"):
        resolve_targets(["openvnio:cpu"])


def test_looking_for_devices_is_silent_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """In a process of its own: OpenVINO's telemetry and ONNX Runtime's act on import, warnings come from C++."""
    code = (
        "import sys; from mbexport.runtimes import all_devices; all_devices();"
        "assert 'openvino_telemetry' not in sys.modules;"
        "assert not {'tensorflow', 'keras', 'tf2onnx', 'scipy'} & set(sys.modules)"
    )
    environment = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
