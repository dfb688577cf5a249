"""``mbexport quantize`` from outside: its document, its words, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner, Result

from mbexport.artifact import read_artifact
from mbexport.errors import InputError
from mbexport_cli.app import app
from tests.colours import truncated
from tests.quantizing import clocked_as, mobile, mobile_artifact, picture_files

if TYPE_CHECKING:
    from pathlib import Path

BOTH = ("--runtime", "ort:cpu", "--runtime", "openvino:cpu")
ORT = ("--runtime", "ort:cpu")
PROMISED = {"artifact", "models", "verdicts"}
PROMISED_OF_EACH = {"runtime", "go", "speedup", "top1_drop", "agreement", "reason"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an artifact ``mobile`` and labelled pictures in ``images``; int8 is twice as fast."""
    monkeypatch.chdir(tmp_path)
    clocked_as(monkeypatch, 2.0)
    picture_files(tmp_path / "images", 32, mobile_artifact(tmp_path))
    return tmp_path


def test_json(here: Path) -> None:
    done = invoke("quantize", "mobile", "--images", "images", "--max-drop", "100", *BOTH, "--json", "--require-go")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() >= PROMISED
    assert (here / document["artifact"]).samefile(here / "mobile_int8")
    assert list(document["models"]) == ["ort:cpu", "openvino:cpu"]
    for path in document["models"].values():
        assert (here / path).is_file()
        onnx.checker.check_model(onnx.load(here / path), full_check=True)
    assert [each["runtime"] for each in document["verdicts"]] == ["ort:cpu", "openvino:cpu"]
    for each in document["verdicts"]:
        assert each.keys() >= PROMISED_OF_EACH
        assert each["go"] is True
        assert each["speedup"] == pytest.approx(2.0)
        assert 0 <= each["agreement"] <= 1
        assert each["top1_drop"] == pytest.approx(1 - each["agreement"])
    assert read_artifact(here / "mobile_int8").manifest.precision == "int8"


def test_text(here: Path) -> None:
    truncated(here / "images" / "broken.jpg").rename(next((here / "images").glob("k*")) / "broken.jpg")
    done = invoke("quantize", "mobile", "--images", "images", "--max-drop", "100", *BOTH)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("ort:cpu ")]
    assert rows[0][1:4] == ["1.000", "2.000", "2.00"]  # p50 of both in ms, times as fast
    assert any(line.startswith("ort:cpu: go: ") for line in lines)
    assert any("broken.jpg" in line for line in lines)
    assert "32 pictures are few" in " ".join(lines)
    tables = [line for line in lines if line.startswith(("ort:cpu ", "openvino:cpu ", "speed", "answers", "size"))]
    assert len(tables) == 9
    legend = [line for line in lines if line.startswith(("on ", "expected: "))]
    assert len(legend) == 2
    assert max(len(line) for line in tables + legend) <= 80


@pytest.mark.parametrize(("speedup", "required", "code"), [(0.5, True, 1), (0.5, False, 0), (2.0, True, 0)])
def test_require_go(speedup: float, required: bool, code: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked_as(monkeypatch, speedup)
    options = ["--require-go"] if required else []
    done = invoke("quantize", "mobile", "--images", "images", "--max-drop", "100", *ORT, "--json", *options)
    assert (done.exit_code, done.stderr) == (code, "")
    (each,) = json.loads(done.stdout)["verdicts"]
    assert each["go"] == (speedup > 1)
    if speedup < 1:
        assert each["reason"] == "2.00 times as slow as float32: better f32"
    assert (here / "mobile_int8" / "model.onnx").is_file()  # a result, whatever it says


@pytest.mark.parametrize(("options", "share"), [([], 0.005), (["--max-drop", "2"], 0.02), (["--max-drop", "0"], 0.0)])
def test_max_drop_is_in_points(options: list[str], share: float, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def stop(*_arguments: object, max_drop: float, **_options: object) -> None:
        asked.append(max_drop)
        raise InputError("seen")

    monkeypatch.setattr("mbexport.quantize.run.quantize", stop)
    assert invoke("quantize", "mobile", "--images", "images", *ORT, *options).exit_code == 2
    assert asked == [pytest.approx(share)]


def test_f16(here: Path) -> None:
    done = invoke("quantize", "mobile", "--images", "images", "--precision", "f16", "--out", "new", *ORT, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (here / document["artifact"]).samefile(here / "new" / "mobile_f16")
    assert document["verdicts"][0]["agreement"] == 1
    assert sorted(path.name for path in (here / "new").iterdir()) == ["mobile_f16"]


def test_from_a_url(here: Path) -> None:
    url = (here / "mobile").absolute().as_uri()
    done = invoke("quantize", url, "--images", "images", "--precision", "f16", "--out", "new", *ORT, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert read_artifact(here / "new" / "mobile_f16").manifest.precision == "f16"


def with_nan(folder: Path) -> Path:
    model = mobile("Relu", top="MatMul")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "stem/kernel")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0, 0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return mobile_artifact(folder, model).path


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_refuses(here: Path) -> None:
    """Bad input: exit 2, one line on stderr, nothing on stdout, and every folder as it was."""
    picture_files(here / "few", 15)
    picture_files(here / "strange" / "k0", 20)
    shutil.copytree(here / "strange" / "k0", here / "strange" / "tiger")
    nan = with_nan(here / "nan")
    taken = mobile_artifact(here / "taken").path
    (here / "taken" / "mobile_int8").mkdir()
    (here / "taken" / "mobile_int8" / "own.txt").write_text("mine")
    (here / "file").write_text("no folder")
    damaged = mobile_artifact(here / "damaged").path
    (damaged / "model.onnx").write_bytes((damaged / "model.onnx").read_bytes()[:-1])
    static = mobile_artifact(here / "static", batch=32).path
    images: list[object] = ["--images", "images"]
    cases: list[tuple[list[object], str]] = [
        (["mobile", "--images", "few"], "holds 15 different pictures"),
        (["mobile", "--images", "nowhere"], "nowhere"),
        (["mobile", "--images", "strange"], "tiger"),
        (["nowhere", *images], "not an artifact"),
        ([nan, *images], "stem/kernel holds numbers that are not finite"),
        ([taken, *images], "own.txt"),
        (["file", *images], "nothing can be put beside file: name a folder with --out"),
        (["s3://bucket/mobile", *images], "nothing can be put beside s3://bucket/mobile: name a folder with --out"),
        (["mobile", *images, "--out", "file"], "cannot write file: "),
        ([damaged, *images], "is not the file that was built"),
        ([static, *images], "batches of 32"),
        (["mobile", *images, "--precision", "int4"], "--precision"),
        (["mobile", *images, "--precision", "bf16"], "bf16 needs no file: bench the float32 artifact on OpenVINO"),
        (["mobile", *images, "--max-drop", "-1"], "--max-drop must be 0 to 100 points"),
        (["mobile", *images, "--max-drop", "nan"], "--max-drop must be 0 to 100 points"),
        (["mobile", *images, "--threads", "3000"], "threads must be"),
        (["mobile", *images, "--runtime", "tpu"], "tpu"),
    ]
    before = snapshot(here)
    for arguments, word in cases:
        runtime = [] if "--runtime" in arguments else ORT
        done = invoke("quantize", *arguments, *runtime, "--json")
        assert (done.exit_code, done.stdout) == (2, ""), (arguments, done.output)
        assert word in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert snapshot(here) == before, arguments


def test_an_int8_artifact_is_not_quantised_again(here: Path) -> None:
    invoke("quantize", "mobile", "--images", "images", *ORT)
    before = snapshot(here)
    done = invoke("quantize", "mobile_int8", "--images", "images", *ORT)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: mobile_int8 is int8 already; give the float32 artifact\n"
    assert snapshot(here) == before
