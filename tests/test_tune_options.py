"""The engine options that tune tries: engines take them, and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest

from mbexport.bench.opening import open_cell
from mbexport.bench.table import table_text
from mbexport.errors import EngineError, InputError
from mbexport.profile import ThreadPlan
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.tune.accuracy import Judged
from mbexport.tune.candidates import Candidate, first_candidates, with_options
from mbexport.tune.run import TuneSettings, tune
from mbexport.tune.variants import Variant, variants_of
from mbexport.tuned import AccuracyCheck
from tests.colours import colour_artifact
from tests.measured import HARDWARE, measurement, profile
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

INSIDE = AccuracyCheck(rule="float32", inside=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(TinyNetwork().onnx_model(), path)
    return path


@pytest.mark.parametrize("target", ["ort:cpu", "openvino:cpu"])
def test_engines_take_every_option_that_is_tried(target: str, tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    candidate = Candidate(Variant(artifact, "model.onnx", target, "parity"), threads=2, callers=1, batch=1)
    tried = list(with_options(candidate, HARDWARE))
    assert tried
    for each in tried:
        assert each.without_options == candidate
        opened = open_cell(each.cell, 0)
        with opened.session as session:
            facts = session.facts()
        for name, value in each.options:
            assert facts.options[name] == value


def test_hyper_threads_are_tried_where_there_are_any(tmp_path: Path) -> None:
    candidate = Candidate(Variant(tiny_artifact(tmp_path), "model.onnx", "openvino:cpu", "parity"), 2, 1, 1)
    single = msgspec.structs.replace(HARDWARE, logical_cores=HARDWARE.physical_cores)
    names = [
        {name for each in with_options(candidate, machine) for name, _ in each.options}
        for machine in (HARDWARE, single)
    ]
    assert names == [{"ENABLE_CPU_PINNING", "ENABLE_HYPER_THREADING"}, {"ENABLE_CPU_PINNING"}]


def test_options_reach_onnx_runtime(model: Path) -> None:
    wanted = {
        "session.intra_op.allow_spinning": "0",
        "graph_optimization_level": "ORT_ENABLE_BASIC",
        "enable_cpu_mem_arena": "0",
    }
    with load_engine("ort").open(model, "cpu", SessionOptions(threads=2, engine_options=wanted)) as session:
        used = session._session.get_session_options()  # type: ignore[attr-defined]
        assert used.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert used.graph_optimization_level.name == "ORT_ENABLE_BASIC"
        assert used.enable_cpu_mem_arena is False
        assert wanted.items() <= session.facts().options.items()


def test_options_reach_openvino(model: Path) -> None:
    options = SessionOptions(threads=2, engine_options={"ENABLE_CPU_PINNING": "NO"})
    with load_engine("openvino").open(model, "cpu", options) as session:
        assert session._compiled.get_property("ENABLE_CPU_PINNING") is False  # type: ignore[attr-defined]


def test_unknown_options_are_errors(model: Path) -> None:
    with pytest.raises(InputError, match="ort has no option speed=1"):
        load_engine("ort").open(model, "cpu", SessionOptions(engine_options={"speed": "1"}))
    with pytest.raises(EngineError, match="SPEED"):
        load_engine("openvino").open(model, "cpu", SessionOptions(engine_options={"SPEED": "1"}))


def test_a_cell_may_name_another_file_of_the_artifact(tmp_path: Path) -> None:
    """OpenVINO's own file exchanges two classes."""
    artifact = colour_artifact(tmp_path, openvino_swap=(0, 1))
    found = []
    for model in ("model.onnx", "model_openvino.onnx"):
        cell = Candidate(Variant(artifact, model, "openvino:cpu", "parity"), 1, 1, 1).cell
        assert cell.model == (None if model == "model_openvino.onnx" else model)
        with open_cell(cell, 0).session as session:
            red = np.tile(np.array([1, -1, -1], np.float32), (1, 32, 32, 1))
            found.append(int(session.run({"input": red})["logits"].argmax()))
    assert found == [0, 1]


@pytest.mark.parametrize(
    ("most", "objective", "expected"),
    [
        (1, "p50", {(1, 1)}),
        (6, "p50", {(1, 1), (2, 1), (4, 1), (6, 1), (3, 1)}),
        (2, "throughput", {(2, 1), (2, 2), (2, 4), (1, 1), (1, 2)}),
    ],
)
def test_threads_and_callers(most: int, objective: str, expected: set[tuple[int, int]], tmp_path: Path) -> None:
    plan = ThreadPlan(threads=max(1, most // 2), most=most, reasons=[])
    (variant, *_) = variants_of([tiny_artifact(tmp_path)], ["ort:cpu"])
    found = first_candidates([Judged(variant, "f32", INSIDE)], objective, plan, None)  # type: ignore[arg-type]
    assert {(each.threads, each.callers) for each in found} == expected
    assert (found[0].threads, found[0].callers) == (plan.threads, 1)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    network = TinyNetwork()
    broken = network.onnx_model()
    artifact = tiny_artifact(tmp_path / "artifacts", network, model=_with_nan(broken))
    with pytest.raises(EngineError, match=r"no runtime runs the float32 model: .*not finite"):
        tune(artifact, ["ort:cpu"], TuneSettings(budget_s=60), profiles=tmp_path / "profiles")
    assert not list((tmp_path / "profiles").rglob("*"))


def test_a_table_needs_no_rows(tmp_path: Path) -> None:
    text = table_text({tmp_path / "a.json": profile(), tmp_path / "b.json": profile(measurement())})
    assert "2026-01-02" in text
    assert "No rows yet." in table_text({tmp_path / "a.json": profile()})


def _with_nan(model: onnx.ModelProto) -> bytes:
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(5, np.nan, np.float32), "bias"))
    data: bytes = model.SerializeToString()
    return data


def test_one_file_is_tried_once(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    found = variants_of([artifact], ["ort:cpu", "ort:cpu"])
    assert [(each.model, each.mode) for each in found] == [("model.onnx", "parity"), ("model.onnx", "production")]
