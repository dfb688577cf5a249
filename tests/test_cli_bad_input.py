"""Bad input: an exit code, one or two lines on stderr, nothing on stdout, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mbexport_cli.app import app
from tests.tiny import tiny_artifact

SMALL = ["--variant", "small"]
SPECS = {
    "alpha 0": ([*SMALL, "--alpha", "0"], "alpha"),
    "alpha -1": ([*SMALL, "--alpha", "-1"], "alpha"),
    "alpha nan": ([*SMALL, "--alpha", "nan"], "alpha"),
    "alpha inf": ([*SMALL, "--alpha", "inf"], "alpha"),
    "alpha abc": ([*SMALL, "--alpha", "abc"], "'abc'"),
    "alpha 1_0": ([*SMALL, "--alpha", "1_0"], "'1_0'"),
    "alpha 1e9": ([*SMALL, "--alpha", "1e9"], "alpha"),
    "alpha 1e-9": ([*SMALL, "--alpha", "1e-9"], "alpha"),
    "resolution 0": ([*SMALL, "--resolution", "0"], "at least 32x32"),
    "resolution 16": ([*SMALL, "--resolution", "16"], "at least 32x32"),
    "resolution 31": ([*SMALL, "--resolution", "31"], "at least 32x32"),
    "resolution -5": ([*SMALL, "--resolution", "-5"], "at least 32x32"),
    "resolution 224x": ([*SMALL, "--resolution", "224x"], "'224x'"),
    "variant huge": (["--variant", "huge"], "did you mean large"),
    "variant far off": (["--variant", "qqqq"], "v2, large, small"),
    "minimalistic v2": (["--variant", "v2", "--minimalistic"], "minimalistic"),
    "classes 0": ([*SMALL, "--classes", "0"], "classes"),
    "pooling with top": ([*SMALL, "--pooling", "avg"], "--no-include-top"),
    "pooling unknown": ([*SMALL, "--pooling", "mean"], "--pooling"),
    "dropout 1": ([*SMALL, "--dropout-rate", "1"], "dropout"),
    "model and variant": (["--model", "mobilenet_v2_1.0_224", *SMALL], "--variant"),
    "model unknown": (["--model", "mobilenet_v3_large_1.0_225"], "did you mean"),
}
BUILDS = SPECS | {
    "no variant": ([], "--variant"),
    "alpha beyond memory": ([*SMALL, "--alpha", "500"], "memory"),
    "resolution 100000": ([*SMALL, "--resolution", "100000"], "memory"),
    "seed -1": ([*SMALL, "--seed", "-1"], "seed"),
    "batch 0": ([*SMALL, "--batch", "0"], "batch"),
    "batch many": ([*SMALL, "--batch", "many"], "'many'"),
    "layout": ([*SMALL, "--layout", "nwhc"], "did you mean nhwc"),
    "opset": ([*SMALL, "--opset", "99"], "opset"),
    "weights missing": ([*SMALL, "--weights", "nowhere.weights.h5"], "nowhere.weights.h5"),
}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(arguments: list[str], code: int, word: str) -> None:
    before = sorted(Path.cwd().rglob("*"))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert 1 <= len(done.stderr.splitlines()) <= 2
    assert done.stderr.startswith("error: ")
    assert word in done.stderr
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize("command", ["build", "run"])
@pytest.mark.parametrize(("arguments", "word"), BUILDS.values(), ids=BUILDS.keys())
@pytest.mark.usefixtures("empty")
def test_build(command: str, arguments: list[str], word: str) -> None:
    refused([command, *arguments, "--json"], 2, word)


@pytest.mark.parametrize(("arguments", "word"), SPECS.values(), ids=SPECS.keys())
@pytest.mark.usefixtures("empty")
def test_info(arguments: list[str], word: str) -> None:
    refused(["info", *arguments, "--json"], 2, word)


@pytest.mark.parametrize("command", ["validate", "bench"])
@pytest.mark.usefixtures("empty")
def test_no_artifact(command: str) -> None:
    refused([command, "nowhere"], 2, "nowhere")
    Path("file").touch()
    refused([command, "file"], 2, "file")
    refused([command, "."], 2, "manifest.json")


@pytest.mark.parametrize("command", ["validate", "bench"])
@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "manifest.json"])
def test_artifact_that_lacks_a_file(command: str, name: str, empty: Path) -> None:
    folder = tiny_artifact(empty).path
    (folder / name).unlink()
    refused([command, str(folder)], 2, name)


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_altered_artifact(command: str, empty: Path) -> None:
    folder = tiny_artifact(empty).path
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    refused([command, str(folder)], 2, "sha256")


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_newer_manifest(command: str, empty: Path) -> None:
    folder = tiny_artifact(empty).path
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    refused([command, str(folder)], 2, "newer mbexport")


@pytest.mark.parametrize("command", ["validate", "bench", "run"])
def test_runtimes(command: str, empty: Path) -> None:
    what = SMALL if command == "run" else [str(tiny_artifact(empty).path)]
    refused([command, *what, "--runtime", "openvin:cpu"], 2, "did you mean openvino:cpu")
    refused([command, *what, "--runtime", "ort:tpu"], 2, "ort:tpu")
    refused([command, *what, "--threads", "0"], 2, "threads")


def test_places_that_cannot_be_written(empty: Path) -> None:
    Path("file").touch()
    folder = str(tiny_artifact(empty).path)
    refused(["bench", folder, "--runtime", "ort:cpu", "--profiles", "file"], 2, "file")
    refused(["run", *SMALL, "--runtime", "ort:cpu", "--profiles", "file"], 2, "file")
    refused(["build", *SMALL, "--out", "file"], 2, "file")


@pytest.mark.usefixtures("empty")
def test_damaged_or_unknown_profile() -> None:
    refused(["profile", "show", "nothing-of-that-name"], 2, "nothing-of-that-name")
    Path("profiles/machine").mkdir(parents=True)
    Path("profiles/machine/broken.json").write_text("{")
    refused(["profile", "show"], 2, "broken.json")


USAGE = {
    "unknown command": (["biuld"], "biuld"),
    "unknown option": (["build", "--vriant", "small"], "--vriant"),
    "no number": (["build", "--classes", "abc"], "--classes"),
    "no artifact": (["validate"], "ARTIFACT"),
    "too many": (["validate", "one", "two"], "two"),
}


@pytest.mark.parametrize(("arguments", "word"), USAGE.values(), ids=USAGE.keys())
def test_usage(arguments: list[str], word: str, empty: Path) -> None:
    done = mbexport(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    first, hint = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert word in first
    assert hint.startswith("see: mbexport")
    assert hint.endswith(" --help")
    assert not any(empty.iterdir())


def mbexport(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mbexport_cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("tensorflow", ["build", *SMALL], "mbexport[build]"),
        ("openvino", ["validate", "tiny", "--runtime", "openvino:cpu"], "mbexport[openvino]"),
    ],
)
def test_package_that_is_not_installed(
    package: str, arguments: list[str], extra: str, empty: Path, tmp_path: Path
) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')")
    tiny_artifact(empty)
    done = mbexport(*arguments, "--json", PYTHONPATH=str(hiding))
    assert (done.returncode, done.stdout) == (3, "")
    assert extra in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    shutil.rmtree(empty / "tiny")
    assert not any(empty.iterdir())


@pytest.mark.usefixtures("empty")
def test_verbose_shows_the_traceback() -> None:
    done = mbexport("validate", "nowhere", "-v")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: nowhere")
