from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbexport.artifact import read_artifact, read_reference, refuse_foreign, write_artifact
from mbexport.errors import ArtifactError, DocumentError, NewerSchemaError, OutputError
from tests.tiny import tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mbexport.artifact import Artifact


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny_artifact(tmp_path)


def edit(artifact: Artifact, change: Callable[[dict[str, Any]], object]) -> None:
    path = artifact.path / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_reads_what_was_written_wherever_it_stands(artifact: Artifact, tmp_path: Path) -> None:
    assert read_artifact(artifact.path).manifest == artifact.manifest
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.move(artifact.path, moved)
    found = read_artifact(moved)
    assert found.sha256 == artifact.sha256
    assert found.model_path("openvino:gpu.1") == moved / "model.onnx"
    for name, array in read_reference(found).inputs.items():
        assert array.dtype == np.float32, name


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "manifest.json"])
def test_file_that_lacks(artifact: Artifact, name: str) -> None:
    (artifact.path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        read_artifact(artifact.path)


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz"])
def test_one_flipped_bit(artifact: Artifact, name: str) -> None:
    data = bytearray((artifact.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact.path / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} is not the file that was built"):
        read_artifact(artifact.path)


def test_newer_schema(artifact: Artifact) -> None:
    edit(artifact, lambda manifest: manifest.update(schema_version=2))
    with pytest.raises(NewerSchemaError, match="schema version 2"):
        read_artifact(artifact.path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda manifest: manifest["files"].update({"../outside": "0" * 64}), ArtifactError),
        (lambda manifest: manifest["files"].update({"/etc/hostname": "0" * 64}), ArtifactError),
        (lambda manifest: manifest["files"].pop("reference.npz"), ArtifactError),
        (lambda manifest: manifest["models"].update(ort="other.onnx"), ArtifactError),
        (lambda manifest: manifest.pop("spec"), DocumentError),
        (lambda manifest: manifest["spec"].update(variant="huge"), DocumentError),
    ],
)
def test_altered_manifest(artifact: Artifact, change: Any, error: type[Exception]) -> None:
    edit(artifact, change)
    with pytest.raises(error):
        read_artifact(artifact.path)


def test_link_out_of_the_folder(artifact: Artifact, tmp_path: Path) -> None:
    shutil.move(artifact.path / "model.onnx", tmp_path / "outside.onnx")
    (artifact.path / "model.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        read_artifact(artifact.path)


def test_engine_without_a_model(artifact: Artifact) -> None:
    edit(artifact, lambda manifest: manifest.update(models={"ort": "model.onnx"}))
    with pytest.raises(ArtifactError, match="no model for openvino:cpu"):
        read_artifact(artifact.path).model_path("openvino:cpu")


def test_pickles_are_never_read(artifact: Artifact) -> None:
    path = artifact.path / "reference.npz"
    np.savez(path, **{"input/x": np.array([object()])})  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_reference(artifact)


def test_artifact_may_be_replaced(artifact: Artifact) -> None:
    refuse_foreign(artifact.path)
    edit(artifact, lambda manifest: manifest.update(schema_version=99))
    refuse_foreign(artifact.path)  # a newer release's too


def test_nothing_else_is_replaced(artifact: Artifact, tmp_path: Path) -> None:
    (artifact.path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        refuse_foreign(artifact.path)
    folder = tmp_path / "schema version"
    folder.mkdir()
    (folder / "manifest.json").write_text("garbage")
    with pytest.raises(OutputError, match=r"manifest\.json"):
        refuse_foreign(folder)
    (folder / "manifest.json").write_text('{"schema_version": 1, "name": "a web app"}')
    with pytest.raises(OutputError):
        refuse_foreign(folder)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError):
        refuse_foreign(tmp_path / "link")
    (tmp_path / "empty").mkdir()
    refuse_foreign(tmp_path / "empty")


def test_refused_artifact_is_not_written(artifact: Artifact, tmp_path: Path) -> None:
    (artifact.path / "notes.txt").write_text("mine")
    model = {"model.onnx": b"x"}
    with pytest.raises(OutputError):
        write_artifact(tmp_path, artifact.manifest, model, read_reference(artifact), name=artifact.path.name)
    assert (artifact.path / "notes.txt").read_text() == "mine"
