"""The second build: other circumstances, the same bytes, and what is said when they differ."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest

from mbexport import child, reproduce
from mbexport.errors import ProcessError, WeightsError
from mbexport.pipeline import build
from mbexport.reproduce import first_difference, other_circumstances, rebuild
from mbexport.spec import ExportOptions
from tests.conftest import SMALL
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact


def test_same_bytes_under_other_circumstances(small_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real second build. This process has built other networks before, the other one has not."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    again = rebuild(small_artifact)
    assert again.passed, again.difference
    assert again.sha256 == small_artifact.sha256


def test_labels_and_the_input_type_are_built_again(tmp_path: Path) -> None:
    """The model's metadata hold the labels, so a second build without them would have other bytes."""
    (tmp_path / "names.txt").write_text("\n".join(f"kind {number}" for number in range(SMALL.classes)))
    export = ExportOptions(input_type="uint8")
    artifact = build(SMALL, export=export, labels=tmp_path / "names.txt", out=tmp_path / "out").artifact
    assert rebuild(artifact).passed


@pytest.mark.slow
def test_twenty_builds_give_one_digest(tmp_path: Path) -> None:
    digests = set()
    for number, (seed, threads, onednn) in enumerate(itertools.product(("0", "1", "4242", "random", "7"), "12", "01")):
        environment = {
            "PYTHONHASHSEED": seed,
            "TF_NUM_INTRAOP_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "TF_ENABLE_ONEDNN_OPTS": onednn,
        }
        command = ["build", "--variant", "small", "--alpha", "0.75", "--out", str(tmp_path / str(number)), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "mbexport_cli", *command],
            env={**os.environ, **environment},
            capture_output=True,
            check=True,
        )
        digests.add(json.loads(done.stdout)["sha256"])
    assert number + 1 == 20
    assert len(digests) == 1


@pytest.mark.parametrize("own", [{}, {"PYTHONHASHSEED": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "OMP_NUM_THREADS": "1"}])
def test_circumstances_are_others(own: dict[str, str]) -> None:
    """TensorFlow's default is oneDNN on, and a thread per core."""
    defaults = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_NUM_INTRAOP_THREADS": str(os.cpu_count()), "PYTHONHASHSEED": "random"}
    other = other_circumstances(own)
    for name, value in (defaults | own).items():
        if name in defaults:
            assert other[name] != value, name
    assert other_circumstances(other).items().isdisjoint({name: other[name] for name in defaults}.items()), (
        "and back again"
    )


def test_second_process_sees_another_cpu() -> None:
    """NumPy there goes without the kernels that it chose here."""
    code = (
        "import json, numpy, sys;"
        "print(json.dumps(numpy.show_config(mode='dicts')['SIMD Extensions']), file=sys.stderr);"
        "sys.exit(7)"
    )
    with pytest.raises(ProcessError) as told:
        child.ask(
            [sys.executable, "-c", code],
            reproduce.Delivery(path="", sha256=""),
            reproduce.Delivery,
            what="it",
            environment=other_circumstances({}),
        )
    there = json.loads(str(told.value).partition("exit code 7: ")[2])
    here: Any = np.show_config(mode="dicts")
    assert set(here["SIMD Extensions"]["found"]).isdisjoint(there.get("found", []))


def delivering(artifact: Artifact) -> tuple[str, ...]:
    """A process that delivers this artifact whatever was ordered."""
    said = msgspec.json.encode(reproduce.Delivery(path=str(artifact.path), sha256=artifact.sha256))
    return sys.executable, "-c", f"import sys; sys.stdin.read(); print({said.decode()!r})"


def test_other_bytes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tiny_artifact(tmp_path / "ours")
    weights = TinyNetwork().weights
    moved = weights["bias"] + np.array([0, 0, 0.5, 0, 0], np.float32)
    again = tiny_artifact(tmp_path / "again", TinyNetwork(weights=weights | {"bias": moved}))
    monkeypatch.setattr(child, "python_module", lambda _name: delivering(again))
    found = rebuild(ours)
    assert not found.passed
    assert found.sha256 == again.sha256 != ours.sha256
    assert found.difference == "first difference: initializer bias: 1 of 5 numbers, by 0.5 at most"


def test_failure_of_the_second_build_is_raised_as_itself(small_artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.h5"):
        rebuild(small_artifact, str(tmp_path / "absent.h5"))


def test_ctrl_c_ends_the_second_build_and_leaves_nothing(
    small_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, temporary = tmp_path / "pid", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(child, "python_module", lambda _name: (sys.executable, "-c", code))

    def interrupt() -> None:
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        assert list(temporary.iterdir())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rebuild(small_artifact)
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert list(temporary.iterdir()) == []


def rename_node(model: onnx.ModelProto) -> None:
    model.graph.node[1].name = "other"


def add_node(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", name="extra", input=["logits"], output=["unused"])


def change_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute[0].ints[0] = 2


def retype(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(4, np.float32), "bias"))


def change_metadata(model: onnx.ModelProto) -> None:
    onnx.helper.set_model_props(model, {"mbexport.tools": "{}"})


def change_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_node, "node Conv_ here, node other again"),
        (add_node, "here, node extra again"),
        (change_attribute, "node Conv_"),
        (retype, "initializer bias: float32[5] here, float32[4] again"),
        (change_metadata, "here, metadata mbexport.tools again"),
        (change_opset, "opset of domain ''"),
        (lambda _model: None, "the same parts, written differently"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_first_difference(change: Any, words: str, tmp_path: Path) -> None:
    one = TinyNetwork().onnx_model()
    for node in one.graph.node:
        node.name = f"{node.op_type}_"
    onnx.save(one, tmp_path / "one.onnx")
    change(one)
    onnx.save(one, tmp_path / "other.onnx")
    assert words in first_difference(tmp_path / "one.onnx", tmp_path / "other.onnx")
