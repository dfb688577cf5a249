"""Validation of int8 artifacts: an engine is held to what the file says of its own rounding."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from mbexport.artifact import read_artifact
from mbexport.quantize.run import quantize
from mbexport.validate import validate
from mbexport_cli.app import app
from tests.quantizing import clocked_as, mobile, mobile_artifact, picture_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact

BOTH = ["ort:cpu", "openvino:cpu"]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """With a file for each engine. Do not write into it."""
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        clocked_as(patch, 2.0)
        quantize(mobile_artifact(folder, mobile(top="Conv")), picture_files(folder / "images", 32), BOTH)
    return read_artifact(folder / "mobile_int8")


def test_both_modes_pass_on_both_engines(narrow: Artifact) -> None:
    report = validate(narrow, BOTH)
    assert report.passed, [row.reason for row in report.rows]
    assert [(row.runtime, row.mode) for row in report.rows] == [
        (target, mode) for target in BOTH for mode in ("parity", "production")
    ]
    for row in report.rows:
        assert row.precision.effective == "int8"
        assert row.sqnr_db is not None
        assert 10 < row.threshold_db < row.sqnr_db < 60
        assert row.top1_agreement is not None
    assert {row.precision.requested for row in report.rows if row.mode == "parity"} == {"int8"}


def altered(artifact: Artifact, out: Path, change: Callable[[dict[str, NDArray[np.float32]]], None]) -> Artifact:
    """A copy whose files hold other constants, and whose manifest has their digests."""
    folder = out / "altered_int8"
    folder.mkdir()
    for path in artifact.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    document = json.loads((folder / "manifest.json").read_text())
    for name in set(artifact.manifest.models.values()):
        model = onnx.load(folder / name)
        arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
        change(arrays)
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
        data = model.SerializeToString()
        (folder / name).write_bytes(data)
        document["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(document))
    return read_artifact(folder)


def double_scale(arrays: dict[str, NDArray[np.float32]]) -> None:
    arrays["two/project/kernel_scale"] *= 2


def swapped_outputs(arrays: dict[str, NDArray[np.float32]]) -> None:
    arrays["two/project/kernel_int8"] = np.roll(arrays["two/project/kernel_int8"], 1, axis=0)


@pytest.mark.parametrize("change", [double_scale, swapped_outputs])
def test_an_altered_file_fails(
    change: Callable[[dict[str, NDArray[np.float32]]], None], narrow: Artifact, tmp_path: Path
) -> None:
    """Engines compute what it says, and Keras's answers are others."""
    report = validate(altered(narrow, tmp_path, change), BOTH)
    assert [row.passed for row in report.rows] == [False] * 4
    for row in report.rows:
        assert row.reason is not None


@pytest.mark.parametrize("option", [["--images", "images"], ["--explain"]])
def test_what_needs_a_float32_graph_is_refused(
    option: list[str], narrow: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(narrow.path.parent)
    done = CliRunner().invoke(app, ["validate", "mobile_int8", "--runtime", "ort:cpu", *option])
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "mobile_int8 is int8" in line


def test_the_command_says_int8(narrow: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(narrow.path.parent)
    done = CliRunner().invoke(app, ["validate", "mobile_int8", "--runtime", "ort:cpu", "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["passed"] is True
    assert [row["precision"] for row in document["rows"]] == [
        {"requested": "int8", "effective": "int8"},
        {"requested": document["rows"][1]["precision"]["requested"], "effective": "int8"},
    ]
