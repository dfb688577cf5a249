"""``validate --save-outputs`` on one machine and ``compare`` on another, as a user runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mbexport import validate
from mbexport.accuracy.report import Precision
from mbexport_cli.app import app
from tests.saved_files import TRUTH, row, write
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"file", "runtime", "mode", "batch", "precision", "truth", "first", "passed", "reason"}
DIFFERENCE = {
    *("output", "inputs", "sqnr_db", "max_abs_error", "mean_abs_error", "top1_agreement", "flips", "threshold_db"),
    *("threshold_origin", "passed", "reason"),
}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_validate_to_compare(here: Path) -> None:
    artifact = str(tiny_artifact(here).path)
    saving = invoke("validate", artifact, "--runtime", "ort:cpu", "--save-outputs", "laptop.npz", "--json")
    assert (saving.exit_code, json.loads(saving.stdout)["passed"]) == (0, True)
    invoke("validate", artifact, "--runtime", "openvino:cpu", "--save-outputs", "out/board.npz")
    done = invoke("compare", "laptop.npz", "out/board.npz", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() == {"passed", "files", "rows", "notes"}
    assert (document["passed"], document["notes"]) == (True, [])
    assert [file["file"] for file in document["files"]] == ["laptop.npz", "out/board.npz"]
    assert [found["runtime"] for found in document["rows"]] == ["ort:cpu"] * 2 + ["openvino:cpu"] * 2
    for found in document["rows"]:
        assert found.keys() == ROW
        assert found["truth"].keys() == DIFFERENCE
    assert document["rows"][0]["first"] is None
    assert document["rows"][3]["first"].keys() == DIFFERENCE
    assert sorted(path.name for path in here.iterdir()) == ["laptop.npz", "out", "tiny"]


def test_failed_validation_is_saved_and_fails_again(here: Path) -> None:
    good = TinyNetwork()
    bad = TinyNetwork(weights=good.weights | {"bias": good.weights["bias"] + np.eye(5, dtype=np.float32)[1]})
    artifact = tiny_artifact(here, good, model=bad.onnx_model().SerializeToString())
    saving = invoke("validate", str(artifact.path), "--runtime", "ort:cpu", "--save-outputs", "a.npz", "--json")
    assert saving.exit_code == 1
    done = invoke("compare", "a.npz", "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    before, after = (json.loads(each.stdout)["rows"][0] for each in (saving, done))
    assert (after["passed"], after["reason"]) == (False, before["reason"])
    assert after["truth"]["sqnr_db"] == pytest.approx(before["sqnr_db"])
    text = invoke("compare", "a.npz")
    assert text.exit_code == 1
    assert "FAILED" in text.stdout
    assert before["reason"] in text.stdout


def test_place_that_cannot_be_written_is_refused_before_validating(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = str(tiny_artifact(here).path)
    (here / "file").touch()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(validate, "validate", never)
    for place in (".", "tiny", "file/a.npz"):
        done = invoke("validate", artifact, "--runtime", "ort:cpu", "--save-outputs", place)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: cannot write ")
        assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in here.iterdir()) == ["file", "tiny"]


def test_bad_files_are_one_line(here: Path) -> None:
    write(here / "a.npz", TRUTH)
    (here / "text.npz").write_text("text")
    (here / "cut.npz").write_bytes((here / "a.npz").read_bytes()[:1000])
    write(here / "b.npz", TRUTH, truth=TRUTH, kind="features")
    cases = {
        ("a.npz", "a.npz"): "a.npz is the same file as a.npz",
        ("a.npz", "missing.npz"): "missing.npz is not a file",
        ("text.npz",): "text.npz is no file of mbexport validate --save-outputs",
        ("a.npz", "cut.npz"): "cut.npz is no file of mbexport validate --save-outputs",
        ("a.npz", "b.npz"): "b.npz cannot be compared with a.npz",
        (): "Missing argument",
    }
    for files, words in cases.items():
        done = invoke("compare", *files, "--json")
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
    for files in [files for files in cases if files]:
        assert len(invoke("compare", *files).stderr.splitlines()) == 1


def test_tables_fit_80_columns_with_names_and_figures_uncut(here: Path) -> None:
    wide = {"runtime": "openvino:gpu.1", "mode": "production"}
    bf16 = Precision(requested="default", effective="bf16")
    rows = [row(123.4, precision=bf16, **wide), row(0.1, precision=bf16, **wide), row(0.0, precision=bf16, **wide)]
    name = "a-rather-long-folder-of-a-customer/" * 3 + "board-of-the-second-revision.npz"
    write(here / "a.npz", TRUTH, np.full_like(TRUTH, np.nan), TRUTH[:, ::-1], rows=rows)
    write(here / name, TRUTH)
    done = invoke("compare", "a.npz", name)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    table = [line.split() for line in lines if line.startswith("1 openvino:gpu.1 ") and line.endswith(("d ", "D "))]
    assert all(len(line) <= 80 for line in lines if line.endswith(("passed ", "FAILED ", "verdict", "──")))
    start = ["1", "openvino:gpu.1", "production", "bf16"]
    assert [*start, "bit-equal", "123.4", "0.0e+00", "100%", "passed"] in table
    assert [*start, "-", "0.1", "-", "-", "FAILED"] in table
    # The classes the other way round: 4 and -5 are 9 apart, twice; -2 and -1 are 1; 10 log10(56 / 164).
    assert [*start, "-4.7", "0.0", "9.0e+00", "50%", "FAILED"] in table
    assert f"2 {name}" in lines
    assert "  tiny on Cortex-A76 (cortex-a76-4c)" in lines
    assert "1 openvino:gpu.1 production: picture 1: class 0 became 2, 9 apart: inside the noise" in lines
