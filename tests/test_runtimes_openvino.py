from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from mbexport.errors import MissingDeviceError, MissingPackageError
from mbexport.runtimes import SessionOptions
from mbexport.runtimes.openvino import OpenVinoRuntime, import_openvino
from tests.tiny import TinyNetwork, pictures

if TYPE_CHECKING:
    from pathlib import Path

ov = import_openvino()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(TinyNetwork().onnx_model(), path)
    return path


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_production_precision_is_the_devices_own_default(device: str, model: Path) -> None:
    # What OpenVINO would choose on this CPU, asked of the plugin itself: bf16 where the CPU has it.
    chosen = ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    default = {ov.Type.bf16: "bf16", ov.Type.f16: "f16", ov.Type.f32: "f32"}[chosen]
    with OpenVinoRuntime().open(model, device, SessionOptions(mode="production")) as session:
        assert session.facts().precision == default


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_options_reach_the_engine(device: str, model: Path) -> None:
    with OpenVinoRuntime().open(model, device, SessionOptions(mode="parity", threads=1, batch=2)) as session:
        compiled = session._compiled
        assert [list(port.shape) for port in compiled.inputs] == [[2, 8, 8, 3]]  # static, though the file is dynamic
        used = compiled.get_property("DEVICE_PROPERTIES")["CPU"] if device == "auto" else None
        for key, value in {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": ov.Type.f32,
            "PERFORMANCE_HINT": "LATENCY",
        }.items():
            assert (used[key] if used else compiled.get_property(key)) == value
        assert session.facts().precision == "f32"
        assert list(session.facts().placement) == ["cpu"]


def test_output_that_fusing_gives_two_names_keeps_the_files_own(tmp_path: Path) -> None:
    renamed = TinyNetwork().onnx_model()
    renamed.graph.node.append(helper.make_node("Identity", ["probabilities"], ["classes"]))
    renamed.graph.output[0].name = "classes"
    path = tmp_path / "renamed.onnx"
    onnx.save(renamed, path)
    feeds = pictures(1)
    with OpenVinoRuntime().open(path, "cpu", SessionOptions()) as session:
        answers = session.run({"input": feeds})
    truth = TinyNetwork().answers(feeds, np.float64)["probabilities"]
    np.testing.assert_allclose(answers["classes"], truth, rtol=1e-4)


def test_openvinos_own_files_open_too(model: Path, tmp_path: Path) -> None:
    network = ov.Core().read_model(model)
    network.outputs[0].get_tensor().add_names({"a", "probabilities", "zz"})  # which nodes fused by other tools leave
    ov.save_model(network, tmp_path / "tiny.xml", compress_to_fp16=False)
    feeds = pictures(1)
    with OpenVinoRuntime().open(tmp_path / "tiny.xml", "cpu", SessionOptions()) as session:
        answers = session.run({"input": feeds})
    truth = TinyNetwork().answers(feeds, np.float64)["probabilities"]
    np.testing.assert_allclose(answers["probabilities"], truth, rtol=1e-4)


def test_device_that_openvino_does_not_report(model: Path) -> None:
    absent = [name for name in ("gpu", "npu") if name.upper() not in ov.Core().available_devices]
    if not absent:
        pytest.skip("every device is here")
    with pytest.raises(MissingDeviceError, match=absent[0].upper()):
        OpenVinoRuntime().open(model, absent[0], SessionOptions())


@pytest.mark.parametrize(("open_axes", "fed"), [((1, 2), [2, 6, 10, 3]), ((2, 3), [2, 3, 6, 10]), ((), [2, 3, 4, 5])])
def test_open_height_and_width_become_those_that_are_fed(
    open_axes: tuple[int, ...], fed: list[int], tmp_path: Path
) -> None:
    """In either layout, and left alone where the file fixes them."""
    sides: list[str | int] = [f"side{axis}" if axis in open_axes else side for axis, side in enumerate(fed)]
    sides[0] = "batch"
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "any", ends[:1], ends[1:])
    path = tmp_path / "any.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with OpenVinoRuntime().open(path, "cpu", SessionOptions(batch=2, size=(6, 10))) as session:
        assert [list(port.shape) for port in session._compiled.inputs] == [fed]


class Failing:
    """Fails to import openvino as a native module does."""

    def __init__(self, *, interrupted: bool) -> None:
        self.interrupted = interrupted

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name == "openvino":
            raise ImportError("initialization failed") from (KeyboardInterrupt() if self.interrupted else None)


@pytest.mark.parametrize("interrupted", [False, True])
def test_interrupted_import_is_no_broken_package(interrupted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(sys, "meta_path", [Failing(interrupted=interrupted), *sys.meta_path])
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            import_openvino()
        with pytest.raises(KeyboardInterrupt):
            OpenVinoRuntime().devices()
    else:
        with pytest.raises(MissingPackageError, match="openvino is broken"):
            import_openvino()
        assert not any(status.available for status in OpenVinoRuntime().devices())
