"""A pipeline from its file to what is published, and again from the cache."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from mbexport.artifact import read_artifact
from mbexport.bundle.verify import verify
from tests.test_cli_results import invoke

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = """
runtimes = ["ort:cpu"]
bench = false

[gates]
max_size_mb = 20

[[cells]]
variant = "small"
alpha = 0.35
resolution = [32, 64]
classes = 10

[[outputs]]
path = "dist/{{network}}.zip"
publish = "file://{folder}/remote/{{network}}.zip"

[[outputs]]
kind = "triton"
path = "dist/models"
"""
NAMES = ["mobilenet_v3_small_0.35_32", "mobilenet_v3_small_0.35_64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a pipeline file lies that was planned and run once; its cache is the one in use."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "mbexport.toml").write_text(FILE.format(folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBEXPORT_CACHE", str(folder / "cache"))
        before = document("plan", folder)
        assert [(cell["build"], cell["validate"]) for cell in before["cells"]] == [("to do", "to do")] * 2
        assert not (folder / "artifacts").exists(), "a plan builds nothing"
        first = document("run", folder)
        assert first["passed"]
        assert not any(cell["result"]["cached"] for cell in first["cells"])
        yield folder


def document(command: str, folder: Path, code: int = 0) -> dict[str, Any]:
    done = invoke("pipeline", command, str(folder / "mbexport.toml"), "--json")
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def digests(folder: Path) -> dict[str, str]:
    places = [place for name in ("artifacts", "dist", "remote") for place in (folder / name).rglob("*")]
    kept = [place for place in places if place.is_file() and place.name not in {"pipeline.json", "junit.xml"}]
    return {str(place.relative_to(folder)): hashlib.sha256(place.read_bytes()).hexdigest() for place in kept}


def test_what_is_made(folder: Path) -> None:
    for name in NAMES:
        assert read_artifact(folder / "artifacts" / name).manifest.slug == name
        assert verify(folder / "dist" / f"{name}.zip", ["ort:cpu"]).passed
        shipped, remote = folder / "dist" / f"{name}.zip", folder / "remote" / f"{name}.zip"
        assert shipped.read_bytes() == remote.read_bytes()
    assert {path.name for path in (folder / "dist" / "models").iterdir() if path.is_dir()} == {
        f"{name}_{backend}" for name in NAMES for backend in ("onnxruntime", "openvino")
    }
    root = ET.fromstring((folder / "artifacts" / "junit.xml").read_text())
    assert [suite.get("name") for suite in root] == [*NAMES, "outputs"]
    assert "# Passed" in (folder / "artifacts" / "pipeline.md").read_text()


def test_again_from_the_cache_and_the_same_bytes(folder: Path) -> None:
    plan = document("plan", folder)
    assert [(cell["build"], cell["validate"]) for cell in plan["cells"]] == [("cached", "cached")] * 2
    before = digests(folder)
    again = document("run", folder)
    assert again["passed"]
    assert all(cell["result"]["cached"] for cell in again["cells"])
    assert digests(folder) == before


def test_a_gate_that_fails_keeps_everything_back(folder: Path) -> None:
    path = folder / "mbexport.toml"
    whole = path.read_text()
    small = (folder / "artifacts" / NAMES[0] / "model.onnx").stat().st_size / 1e6
    limited = whole.replace("max_size_mb = 20", f"max_size_mb = {small * 0.99}")
    path.write_text(limited.replace("/dist", "/dist2").replace("dist/", "kept/").replace("/remote/", "/elsewhere/"))
    found = document("run", folder, code=1)
    path.write_text(whole)
    assert not found["passed"]
    assert all(cell["gates"][0]["passed"] is False for cell in found["cells"])
    assert all("did not pass" in output["reason"] for output in found["outputs"])
    assert not (folder / "kept").exists()
    assert not (folder / "elsewhere").exists()
    failures = ET.fromstring((folder / "artifacts" / "junit.xml").read_text()).findall(".//failure")
    assert len(failures) == 2 + 3


def test_one_bad_cell_keeps_the_other_from_being_published_but_not_made(folder: Path) -> None:
    path = folder / "mbexport.toml"
    whole = path.read_text()
    extra = '[[cells]]\nvariant = "small"\nalpha = 0.35\nresolution = 32\nclasses = 10\nminimalistic = true\n'
    text = f"{whole}\n{extra}gates = {{ max_size_mb = 0.001 }}\n"
    path.write_text(text.replace("dist/{network}", "one/{network}").replace("/remote/", "/elsewhere/"))
    found = document("run", folder, code=1)
    path.write_text(whole)
    reasons = {output["path"].rpartition("/")[2]: output["reason"] for output in found["outputs"]}
    assert reasons[f"{NAMES[0]}.zip"] == "not published: something else in the pipeline did not pass"
    assert (folder / "one" / f"{NAMES[0]}.zip").is_file()
    assert "minimalistic" in reasons["models"]
    assert not (folder / "elsewhere").exists()


def test_shown(folder: Path) -> None:
    for command in ("check", "plan", "run"):
        done = invoke("pipeline", command, str(folder / "mbexport.toml"))
        assert done.exit_code == 0, done.output
        assert NAMES[0] in done.stdout
    assert "published: file://" in done.stdout


def test_a_runtime_that_is_not_here_is_exit_3(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mbexport.toml").write_text('runtimes = ["openvino:npu"]\n[[cells]]\nvariant = "small"\n')
    done = invoke("pipeline", "run", str(tmp_path / "mbexport.toml"), "--json")
    assert done.exit_code == 3
    assert done.stdout == ""
