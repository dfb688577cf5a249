"""``validate --images``: the user's pictures, whose truth is the artifact's graph in float64."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image

from mbexport.accuracy.graph_float64 import evaluate, in_float64
from mbexport.artifact import MODEL, read_reference, write_artifact
from mbexport.compare import centred_log, sqnr_db
from mbexport.errors import UntiedGraphError
from mbexport.pictures import pictures
from mbexport.validate import Checks, validate
from tests.test_cli_results import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "kind"
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures(5, 90, 80, seed=3)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    flat = np.full((90, 80, 3), 200, np.uint8)  # rounding is the same in every pixel of it
    Image.fromarray(flat).save(folder / "flat.png")
    return folder.parent


def test_the_graph_in_float64_is_keras_in_float64(small_artifact: Artifact) -> None:
    reference = read_reference(small_artifact)
    answers = evaluate(in_float64(onnx.load(small_artifact.path / MODEL)), reference.inputs)
    ((name, truth),) = reference.keras_float64.items()
    assert answers[name].dtype == np.float64
    assert sqnr_db(centred_log(truth), centred_log(answers[name])) > 100  # float32 weights with batch norm folded in


def test_right_network_on_pictures_of_ones_own(small_artifact: Artifact, images: Path) -> None:
    done = invoke("validate", str(small_artifact.path), "--images", str(images), "--limit", "4", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 0, document
    assert document["images"] == 4
    alone = Checks(images=[images / "kind" / "flat.png"])
    assert validate(small_artifact, ["ort:cpu", "openvino:cpu"], alone, threads=1).passed


def test_flipped_pictures_are_named(small_artifact: Artifact, images: Path, tmp_path: Path) -> None:
    """Weights of another seed: only the pictures' own truth, which is this graph's, would call them right."""
    model = onnx.load(small_artifact.path / MODEL)
    node = next(node for node in model.graph.node if node.op_type == "Gemm")
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    array = onnx.numpy_helper.to_array(kernel)
    kernel.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(np.roll(array, 1, axis=1)), kernel.name))
    wrong = write_artifact(
        tmp_path,
        small_artifact.manifest,
        {MODEL: model.SerializeToString()},
        read_reference(small_artifact),
        name="wrong",
    )
    report = validate(wrong, ["ort:cpu"], Checks(images=sorted((images / "kind").iterdir())))
    assert not report.passed
    assert report.images == 0  # a graph that is not Keras's is no truth for them
    assert {flip.picture.partition(" ")[0] for flip in report.rows[0].flips} == {"reference"}


def test_a_graph_that_the_evaluator_gets_wrong_gives_no_truth(
    small_artifact: Artifact, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbexport.accuracy import graph_float64

    honest = graph_float64.evaluate
    monkeypatch.setattr(
        graph_float64,
        "evaluate",
        lambda model, inputs: {name: array[:, ::-1] for name, array in honest(model, inputs).items()},
    )
    with pytest.raises(UntiedGraphError, match="leave --images out"):
        validate(small_artifact, ["ort:cpu"], Checks(images=[images / "kind" / "0.png"]))


def test_flat_and_empty_folders(small_artifact: Artifact, tmp_path: Path, images: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, limit, reason in (("empty", "4", "holds no pictures"), ("nowhere", "4", "is not a folder")):
        done = invoke("validate", str(small_artifact.path), "--images", str(tmp_path / place), "--limit", limit)
        assert (done.exit_code, done.stdout) == (2, "")
        assert reason in done.stderr
    done = invoke("validate", str(small_artifact.path), "--images", str(images), "--limit", "0")
    assert done.exit_code == 2
    assert "limit must be at least 1" in done.stderr
    done = invoke("validate", str(small_artifact.path), "--limit", "4")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: --limit 4 limits the pictures of --images DIR, which is not given\n",
    )
