from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from mbexport.spec import ModelSpec
from mbexport_cli.app import app
from tests.colours import COLOURS, colour_artifact, int8_beside, paint, truncated

if TYPE_CHECKING:
    from pathlib import Path

BOTH = ("--runtime", "ort:cpu", "--runtime", "openvino:cpu")
EVALUATION = {
    *("images", "rows", "published_top1", "disagreements", "failed", "seconds", "images_per_s"),
    *("output", "other_outputs", "note", "artifact", "artifact_sha256", "input_size"),
}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    """Four pictures, all but the last of which show what their folder says."""
    for number, colour in enumerate(["red", "green", "blue", "red"]):
        paint(here / "photos" / f"c{number}" / "a.png", colour)
    return here / "photos"


def test_evaluate_json(photos: Path, here: Path) -> None:
    artifact = colour_artifact(here)
    done = invoke("evaluate", artifact.path, "--images", photos, *BOTH, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() >= EVALUATION
    assert document["artifact"] == artifact.manifest.slug
    assert document["artifact_sha256"] == hashlib.sha256((artifact.path / "model.onnx").read_bytes()).hexdigest()
    assert document["input_size"] is None
    assert document["images"] == 4
    assert [row["runtime"] for row in document["rows"]] == ["ort:cpu", "openvino:cpu"]
    for row in document["rows"]:
        assert (row["top1"], row["top5"]) == (0.75, 1.0)
        low, high = row["top1_ci"]
        assert 0 < low < 0.75 < high < 1


def test_evaluate_text(photos: Path, here: Path) -> None:
    artifact = colour_artifact(
        here, openvino_swap=(0, 1), spec=ModelSpec(variant="small"), weights="keras-file", outputs=("logits",)
    )
    done = invoke("evaluate", artifact.path, "--images", photos, *BOTH)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    table = {line.split()[0]: line.split() for line in lines if line.startswith(("ort", "openvino", "published "))}
    assert (table["ort:cpu"][1:3], table["openvino:cpu"][1:3]) == (["f32", "75.00"], ["f32", "25.00"])
    assert table["published"][1:3] == ["f32", "68.10"]
    assert max(len(line) for line in lines if line.startswith(("ort", "openvino", "accuracy"))) <= 80
    assert "the runtimes' most probable classes differ on 3 pictures" in lines
    assert f"  {photos / 'c0' / 'a.png'}: ort:cpu fire red, openvino:cpu green (right: fire red)" in lines


def test_int8_is_shown_beside_float32(photos: Path, here: Path) -> None:
    narrow = int8_beside(colour_artifact(here), swap=(0, 1))
    lines = invoke("evaluate", narrow.path, "--images", photos, "--runtime", "ort:cpu").stdout.splitlines()
    first, second = [line.split() for line in lines if line.startswith("ort:cpu ")]
    assert (first[1:3], second[1:3]) == (["int8", "25.00"], ["75.00", "-50.00"])
    assert second[-3] == "25.00"
    assert max(len(line) for line in lines) <= 80
    predicted = invoke("predict", narrow.path, photos / "c2" / "a.png", "--runtime", "ort:cpu")
    assert "computed in int8 on ort:cpu" in predicted.stdout.splitlines()
    float32 = invoke("predict", here / "colours", photos / "c2" / "a.png", "--runtime", "ort:cpu")
    assert "computed in" not in float32.stdout


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_corrupt_pictures_are_named_and_exit_1(form: list[str], photos: Path, here: Path) -> None:
    broken = truncated(photos / "c1" / "broken.jpg")
    done = invoke("evaluate", colour_artifact(here).path, "--images", photos, "--runtime", "ort:cpu", *form)
    assert (done.exit_code, done.stderr) == (1, "")
    if form:
        document = json.loads(done.stdout)
        assert document["images"] == 4
        assert [each["path"] for each in document["failed"]] == [str(broken)]
    else:
        assert f"skipped: {broken} cannot be read" in done.stdout
        assert "75.00" in done.stdout


def test_evaluate_refuses(photos: Path, here: Path) -> None:
    usual = colour_artifact(here).path
    features = colour_artifact(here / "features", outputs=("features",)).path
    (here / "empty").mkdir()
    (here / "list.csv").write_text("path,label\nphotos/c0/a.png,0\nphotos/c1/a.png,4\n")
    paint(here / "strange" / "tiger" / "a.png", "red")
    truncated(here / "broken" / "c0" / "a.jpg")
    cases: list[tuple[list[object], str]] = [
        ([usual, "--images", "empty"], "empty holds no folders"),
        ([usual, "--images", "elsewhere"], "elsewhere does not exist"),
        ([usual, "--images", "list.csv"], "list.csv, line 3: label '4'"),
        ([usual, "--images", "strange"], "tiger fits none"),
        ([usual, "--images", "broken"], "a.jpg"),
        ([usual, "--images", photos, "--limit", "0"], "limit must be at least 1, not 0"),
        ([usual, "--images", photos, "--threads", "3000"], "threads must be"),
        ([features, "--images", photos], "does not classify"),
        ([here / "photos", "--images", photos], "not an artifact"),
        ([usual], "--images"),
    ]
    for arguments, word in cases:
        done = invoke("evaluate", *arguments, "--runtime", "ort:cpu", "--json")
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert word in done.stderr
        if arguments != [usual]:  # Typer's own message
            assert 1 <= len(done.stderr.splitlines()) <= 2


def test_predict_json(here: Path) -> None:
    paths = [paint(here / f"{colour}.png", colour) for colour in COLOURS]
    done = invoke("predict", colour_artifact(here).path, *paths, *BOTH, "--json", "--top", 2)
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["failed"] == []
    assert [each["path"] for each in document["pictures"]] == [str(path) for path in paths]
    for index, each in enumerate(document["pictures"]):
        assert [row["runtime"] for row in each["rows"]] == ["ort:cpu", "openvino:cpu"]
        for row in each["rows"]:
            assert row["precision"] == "f32"
            assert len(row["top"]) == 2
            assert row["top"][0].keys() == {"index", "id", "label", "probability"}
            assert row["top"][0]["index"] == index
            assert row["top"][0]["probability"] > row["top"][1]["probability"]


def test_predict_text_of_a_folder_and_a_pattern(here: Path) -> None:
    for colour in COLOURS:
        paint(here / "photos" / f"{colour}.png", colour)
    artifact = colour_artifact(here).path
    done = invoke("predict", artifact, "photos", "--runtime", "ort:cpu")
    assert done.exit_code == 0, done.output
    tops = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ort:cpu")]
    assert [top[1:3] for top in tops] == [["3", "c3"], ["2", "c2"], ["1", "c1"], ["0", "c0"]]  # black, blue, green, red
    done = invoke("predict", artifact, "photos/*e*.png", "--runtime", "ort:cpu", "--json")
    names = [each["path"] for each in json.loads(done.stdout)["pictures"]]
    assert names == ["photos/blue.png", "photos/green.png", "photos/red.png"]


def test_predict_with_pictures_that_cannot_be_read(here: Path) -> None:
    good, bad = paint(here / "good.png", "red"), truncated(here / "bad.jpg")
    artifact = colour_artifact(here).path
    done = invoke("predict", artifact, bad, good, "--runtime", "ort:cpu", "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert [each["path"] for each in document["pictures"]] == [str(good)]
    assert [each["path"] for each in document["failed"]] == [str(bad)]
    done = invoke("predict", artifact, bad, good, "--runtime", "ort:cpu")
    assert done.exit_code == 1
    assert f"skipped: {bad} cannot be read" in done.stdout
    done = invoke("predict", artifact, bad, "--runtime", "ort:cpu", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert str(bad) in done.stderr
    (here / "text.jpg").write_text("no picture")
    done = invoke("predict", artifact, "text.jpg", "--runtime", "ort:cpu")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "text.jpg is not a picture" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX systems do")
def test_ctrl_c_ends_evaluate(here: Path) -> None:
    """Pressed while a hundred thousand pictures are under way: no result, exit 130, and no waiting for the rest."""
    paint(here / "red.png", "red")
    (here / "list.csv").write_text("red.png,0\n" * 100_000)
    artifact = colour_artifact(here).path
    code = "from mbexport_cli.__main__ import main; main()"
    arguments = ["evaluate", str(artifact), "--images", "list.csv", "--runtime", "ort:cpu", "-v"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "evaluate" in line)
        assert "of 100000" in line
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)  # of a command that does not end
    assert (process.returncode, stdout) == (130, "")
    assert stderr.endswith("interrupted\n")
