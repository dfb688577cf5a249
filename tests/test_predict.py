from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbexport.classifier import classifier_outputs, open_classifier
from mbexport.errors import ArtifactError, EngineError, InputError
from mbexport.predict import predict
from tests.colours import COLOURS, LABELS, SIDE_PX, colour_artifact, contract, expected_logits, paint, truncated

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = ["ort:cpu", "openvino:cpu"]
FORMS: dict[str, dict[str, Any]] = {
    "usual": {},
    "planes first": {"shape": [None, 3, SIDE_PX, SIDE_PX], "layout": "nchw"},
    "blue first": {"colour_order": "BGR"},
    "decoded": {"type": "uint8", "mean": 0.0, "scale": 1.0, "range": (0.0, 255.0)},
    "four at once": {"shape": [4, SIDE_PX, SIDE_PX, 3]},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_colour_is_seen_whatever_the_contract(form: str, tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path, **FORMS[form])
    paths = [paint(tmp_path / f"{colour}.png", colour) for colour in COLOURS]
    report = predict(artifact, paths, TARGETS, threads=1)
    assert [each.path for each in report.pictures] == [str(path) for path in paths]
    for index, each in enumerate(report.pictures):
        assert [row.runtime for row in each.rows] == TARGETS
        for row in each.rows:
            best = row.top[0]
            assert (best.index, best.id, best.label) == (index, LABELS[index].id, LABELS[index].name)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_probabilities(kind: Any, tmp_path: Path) -> None:
    """Softmax of the matrix product, written a second time in NumPy; every class where there are but four."""
    [each] = predict(
        colour_artifact(tmp_path, outputs=(kind,)), [paint(tmp_path / "a.png", "blue")], ["ort:cpu"]
    ).pictures
    exponents = np.exp(expected_logits(COLOURS["blue"]))
    expected = exponents / exponents.sum()
    top = each.rows[0].top
    assert [guess.index for guess in top] == [2, 3, 0, 1]
    assert [guess.probability for guess in top] == pytest.approx(expected[[2, 3, 0, 1]].tolist(), rel=1e-4)


def test_top_and_no_labels(tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path, labels=None)
    path = paint(tmp_path / "a.png", "green")
    [each] = predict(artifact, [path], ["ort:cpu"], top=2).pictures
    assert [(guess.index, guess.id, guess.label) for guess in each.rows[0].top] == [(1, None, None), (3, None, None)]
    with pytest.raises(InputError, match="top must be at least 1, not 0"):
        predict(artifact, [path], ["ort:cpu"], top=0)


def test_pictures_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path)
    bad, good = truncated(tmp_path / "bad.jpg"), paint(tmp_path / "good.png", "red")
    done: list[int] = []
    report = predict(artifact, [bad, tmp_path / "missing.png", good], ["ort:cpu"], progress=done.append)
    assert [each.path for each in report.pictures] == [str(good)]
    assert [each.path for each in report.failed] == [str(bad), str(tmp_path / "missing.png")]
    assert "truncated" in report.failed[0].reason
    assert done == [1, 2, 3]
    with pytest.raises(InputError, match=r"bad.jpg .*truncated.*; nor can the other 1"):
        predict(artifact, [bad, tmp_path / "missing.png"], ["ort:cpu"])


def test_what_does_not_classify_is_refused(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", "red")
    with pytest.raises(InputError, match=r"does not classify: its outputs are features .*; build it with its top"):
        predict(colour_artifact(tmp_path, outputs=("features",)), [path], ["ort:cpu"])
    with pytest.raises(ArtifactError, match="3 labels for the 4 classes"):
        predict(colour_artifact(tmp_path, labels=LABELS[:3]), [path], ["ort:cpu"])


@pytest.mark.parametrize("concurrent", [True, False])
def test_concurrent_sessions_are_not_bound_to_one_core(concurrent: bool, tmp_path: Path) -> None:
    """OpenVINO binds every session with one thread to the same core, so that several would take turns there."""
    artifact = colour_artifact(tmp_path)
    [output] = classifier_outputs(artifact)
    with open_classifier(artifact, "openvino:cpu", output, 1, concurrent=concurrent) as classifier:
        session: Any = classifier._session
        if concurrent:
            assert session._compiled.get_property("ENABLE_CPU_PINNING") is False
        assert ("ENABLE_CPU_PINNING" in session.facts().options) is concurrent


def test_the_first_of_several_classifiers_is_used(tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path, outputs=("features", "probabilities", "logits"))
    report = predict(artifact, [paint(tmp_path / "a.png", "red")], ["ort:cpu"])
    assert (report.output, report.other_outputs) == ("probabilities", ["logits"])
    assert report.pictures[0].rows[0].top[0].index == 0


def test_answers_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    nan = numpy_helper.from_array(np.full((1, 4), np.nan, np.float32), "nan")
    taken = contract()
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
            helper.make_node("Add", ["column", "nan"], ["logits"]),
        ],
        "nan",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *taken.shape[1:]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [nan, numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artifact = colour_artifact(tmp_path, model=model.SerializeToString())
    with pytest.raises(EngineError, match="not finite"):
        predict(artifact, [paint(tmp_path / "a.png", "red")], ["ort:cpu"])
