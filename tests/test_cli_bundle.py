"""``mbexport bundle``, ``verify`` and ``rebuild`` as they are typed, and bundles where commands take artifacts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_cli_results import invoke
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact


@pytest.fixture(scope="module")
def bundled(small_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "small.zip"
    done = invoke("bundle", str(small_artifact.path), "-o", str(out), "--runtime", "ort:cpu", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["bundle"] == str(out)
    assert document["size_bytes"] == out.stat().st_size
    return out


def document(*arguments: str) -> dict[str, Any]:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_verify(bundled: Path) -> None:
    found = document("verify", str(bundled))
    assert found["passed"]
    assert {row["runtime"] for row in found["rows"]} == {"ort:cpu", "openvino:cpu"}
    shown = invoke("verify", str(bundled))
    assert "signature: none" in shown.stdout
    assert max(map(len, shown.stdout.splitlines()[3:])) < 80


def test_commands_take_a_bundle_for_an_artifact(
    bundled: Path, small_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert document("validate", str(bundled))["passed"]
    assert document("validate", f"{bundled}/{small_artifact.manifest.slug}", "--runtime", "ort:cpu")["passed"]
    benched = document("bench", str(bundled), "--runtime", "ort:cpu", "--mode", "parity", "--budget", "8s")
    assert benched["rows"][0]["p50_s"] > 0
    assert (tmp_path / benched["profile"]).is_file()


def test_wrong_answers_are_exit_1_and_damage_is_exit_2(bundled: Path, tmp_path: Path) -> None:
    wrong = TinyNetwork()
    model = wrong.onnx_model()
    wrong.weights["bias"][0] += 1
    artifact = tiny_artifact(tmp_path, wrong, model=model.SerializeToString())
    done = invoke("bundle", str(artifact.path), "-o", str(tmp_path / "b.zip"), "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "nothing was written" in done.stderr
    assert not (tmp_path / "b.zip").exists()
    damaged = tmp_path / "damaged.zip"
    data = bytearray(bundled.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for command in ("verify", "validate", "bench", "predict"):
        more = ["picture.png"] if command == "predict" else []
        done = invoke(command, str(damaged), *more, "--json")
        assert (done.exit_code, done.stdout) == (2, ""), command
        assert "artifacts/" in done.stderr
        assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["bundle", "nowhere", "-o", "b.zip"], "nowhere is not an artifact"),
        (["verify", "nowhere.zip"], "nowhere.zip cannot be read"),
        (["verify", "text.txt"], "no bundle"),
        (["rebuild", "text.txt", "-o", "b.zip"], "no bundle"),
        (["validate", "text.txt"], "no bundle"),
    ],
)
def test_bad_input(arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    done = invoke(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert word in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]


def test_rebuild(bundled: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.zip"
    found = document("rebuild", str(bundled), "-o", str(out))
    assert found["passed"]
    assert found["identical"]
    assert out.read_bytes() == bundled.read_bytes()
