"""``validate --explain``: the first wrong node and its cause, for faults whose place is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fault_bench.batch_norms import batch_norms_of
from fault_bench.draft import Correct
from fault_bench.effect import faulty_artifact
from fault_bench.library import ALL
from mbexport.accuracy import trace
from mbexport.accuracy.exposing import cuts, exposed
from mbexport.artifact import MODEL, TRACES, read_artifact, read_reference, read_trace, write_artifact
from mbexport.build import build_model
from mbexport.errors import ArtifactError
from mbexport.pipeline import build
from mbexport.runtimes import ENGINES
from mbexport.runtimes.openvino import OpenVinoRuntime
from mbexport.runtimes.ort import OrtRuntime
from mbexport.runtimes.ort_calls import run_unoptimized
from mbexport.spec import ExportOptions
from mbexport.validate import Checks, explained, validate
from tests.conftest import SMALL
from tests.test_cli_results import invoke

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fault_bench.fault import Fault, Injected
    from mbexport.accuracy.report import Explanation
    from mbexport.artifact import Artifact
    from mbexport.runtimes import Session, SessionOptions

PARITY = Checks(modes=("parity",))
CAUSES = {
    "input scale off by 1%": "1.01 times what it should be",
    "doubled Rescaling": "as where a rescaling is missing, doubled",
    "BGR": "colours come as BGR",
    "one depthwise kernel transposed": "height and width are transposed",
    "two output channels swapped": "2 of",
    "hard-swish replaced by hard-sigmoid": "should be hard-swish and is hard-sigmoid",
    "hard-swish replaced by swish": "should be hard-swish and is swish",
    "hard-swish with 1/6 rounded": "is hard-swish with 0.1667 for 1/6",
    "padding on the other side": "padding: it stands on the other side",
    "batch-norm epsilon 1e-5 for 1e-3": "epsilon",
    "one bias dropped": "bias",
    "squeeze-excite bypassed": "squeeze-excite",
    "softmax on the wrong axis": "axis",
    "top-1 off by one class": "shifted by 1",
    "batch items mixed up": "batch",
    "a stale constant for a dynamic batch": "Reshape",
    "a weight in fp16": "float16",
    "a NaN": "not finite",
}
"""What the first cause says, where one is recognised."""


@pytest.fixture(scope="module")
def correct(small_artifact: Artifact) -> Correct:
    return Correct(onnx.load(small_artifact.path / MODEL), batch_norms_of(build_model(SMALL).model))


def explained_rows(artifact: Artifact, *targets: str) -> list[Explanation]:
    report = validate(artifact, targets, PARITY, threads=1)
    assert not any(row.passed for row in report.rows)
    return explained(artifact, report, threads=1).explanations


def faulty(fault: Fault, correct: Correct, artifact: Artifact, folder: Path) -> tuple[Injected, Artifact] | None:
    found = fault.inject(correct, np.random.default_rng([1, ALL.index(fault)]))
    return None if found is None else (found, faulty_artifact(artifact, found, folder / "faulty"))


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_the_right_node_and_cause_are_named(
    fault: Fault, correct: Correct, small_artifact: Artifact, tmp_path: Path
) -> None:
    made = faulty(fault, correct, small_artifact, tmp_path)
    if made is None:
        assert fault.name == "ReLU6 to ReLU"  # V3 Small has none
        return
    injected, wrong = made
    (found,) = explained_rows(wrong, "ort:cpu")
    assert found.node in injected.culprits, found
    assert found.layer in injected.layers
    assert found.sessions < 15
    if fault.name in CAUSES:
        assert CAUSES[fault.name] in found.causes[0]
    reached = [node.node for node in found.nodes if not node.within]
    if fault.name == "a stale constant for a dynamic batch":  # the graph does not run as a whole
        assert not found.nodes
    else:
        assert reached[0] == found.node


@pytest.mark.parametrize("name", ["one depthwise kernel transposed", "squeeze-excite bypassed"])
def test_on_openvino_too(name: str, correct: Correct, small_artifact: Artifact, tmp_path: Path) -> None:
    fault = next(fault for fault in ALL if fault.name == name)
    made = faulty(fault, correct, small_artifact, tmp_path)
    assert made is not None
    (found,) = explained_rows(made[1], "openvino:cpu")
    assert found.node in made[0].culprits
    assert CAUSES[name] in found.causes[0]


@pytest.mark.parametrize("target", ["ort:cpu", "openvino:cpu"])
def test_a_right_graph_has_no_wrong_node(small_artifact: Artifact, target: str) -> None:
    report = explained(small_artifact, validate(small_artifact, [target], threads=1), threads=1)
    assert [found.mode for found in report.explanations] == ["parity", "production"]
    for found in report.explanations:
        assert (found.node, found.causes, found.suspects) == (None, [], [])
        assert len(found.nodes) == small_artifact.manifest.graph.nodes
        assert all(node.within for node in found.nodes)


def test_a_row_that_failed_elsewhere_blames_no_node(small_artifact: Artifact) -> None:
    asked = Checks(modes=("parity",), min_sqnr_db=400)
    report = explained(small_artifact, validate(small_artifact, ["ort:cpu"], asked), threads=1)
    (found,) = report.explanations
    assert found.node is None
    assert "every node is right; the row failed elsewhere: SQNR" in found.causes[0]


def test_each_model_file_is_held_to_its_own_trace(tmp_path: Path) -> None:
    """At opset 13 the two files give one name to tensors that hold different things."""
    artifact = build(SMALL, export=ExportOptions(opset=13), out=tmp_path).artifact
    report = explained(artifact, validate(artifact, ["ort:cpu", "openvino:cpu"], PARITY))
    assert [found.node for found in report.explanations] == [None, None]
    for found in report.explanations:
        assert found.nodes
        assert all(node.within for node in found.nodes)


def test_not_a_number_in_the_file_fails_in_production_too(
    correct: Correct, small_artifact: Artifact, tmp_path: Path
) -> None:
    fault = next(fault for fault in ALL if fault.name == "a NaN")
    for seed in range(3):
        found = fault.inject(correct, np.random.default_rng(seed))
        assert found is not None
        wrong = faulty_artifact(small_artifact, found, tmp_path / str(seed))
        report = validate(wrong, ["ort:cpu", "openvino:cpu"], Checks(modes=("production",)))
        assert not any(row.passed for row in report.rows), report.rows


class WrongAsAWhole(OrtRuntime):
    """Wrong where the last tensor is the only one that is asked for, as a fusion may be."""

    def open(self, model: Path, device: str, options: SessionOptions) -> Session:  # type: ignore[override]
        session = super().open(model, device, options)
        right = session.run

        def run(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            answers = right(feeds)
            return {name: np.flip(array, axis=-1) for name, array in answers.items()} if len(answers) == 1 else answers

        if [output.name for output in onnx.load(model).graph.output] == ["predictions"]:
            session.run = run  # type: ignore[method-assign]
        return session


def test_what_no_closer_look_resolves(small_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "ort", f"{__name__}:WrongAsAWhole")
    (found,) = explained_rows(small_artifact, "ort:cpu")
    assert found.node is None
    assert found.suspects[-1].endswith("Softmax")
    assert "fusion" in found.causes[-1]


class DeafOpenVino(OpenVinoRuntime):
    """Does not listen to the precision that is asked for."""

    def open(self, model: Path, device: str, options: SessionOptions) -> Session:  # type: ignore[override]
        return super().open(model, device, replace(options, mode="production"))


def test_a_parity_request_that_is_ignored_fails_whatever_the_answers(
    small_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = validate(small_artifact, ["openvino:cpu"], Checks(modes=("production",)))
    (row,) = production.rows
    if row.precision.effective == "f32":
        pytest.skip("this CPU has no bf16, so OpenVINO computes in float32 by default")
    assert row.passed
    assert row.precision.effective == "bf16"
    assert "rounded to bf16" in row.threshold_origin
    monkeypatch.setitem(ENGINES, "openvino", f"{__name__}:DeafOpenVino")
    (found,) = explained_rows(small_artifact, "openvino:cpu")
    assert found.causes[0] == "precision: the engine computes in bf16, not in f32"
    (row,) = validate(small_artifact, ["openvino:cpu"], Checks(modes=("parity",), min_sqnr_db=0)).rows
    assert row.reason == "f32 was asked for, the engine computed in bf16"


def test_cuts_are_the_tensors_on_which_all_that_follows_hangs() -> None:
    """x -> a -> (b, c) -> d -> e, and a residual from d round e to f."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Sigmoid", ["a"], ["c"]),
        helper.make_node("Mul", ["b", "c"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Add", ["d", "e"], ["f"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "f")]
    model = helper.make_model(
        helper.make_graph(nodes, "cuts", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    assert list(cuts(model)) == ["a", "d", "f"]
    part = exposed(model, ["c"])
    assert [node.output[0] for node in part.graph.node] == ["a", "c"]
    x = np.array([[-1.0, 0.0, 2.0]] * 2, np.float32)
    np.testing.assert_allclose(run_unoptimized(part, {"x": x})["c"], 1 / (1 + np.exp(-np.maximum(x, 0))), rtol=1e-6)


def test_a_sample_looks_at_every_channel_in_the_same_places() -> None:
    array = np.arange(2 * 300 * 7 * 7, dtype=np.float32).reshape(2, 300, 7, 7)
    found = trace.sampled(array)
    assert found.shape[:2] == (2, 300)
    places = found[0, 0]
    assert len(set(places)) == len(places) >= 4
    np.testing.assert_array_equal(found[1, 299], places + (300 + 299) * 49)
    np.testing.assert_array_equal(trace.sampled(array[:, :2, :3, :3]), array[:, :2, :3, :3].reshape(2, 2, 9))


def test_the_trace_is_what_the_graph_holds(small_artifact: Artifact) -> None:
    held = read_trace(small_artifact)
    model = onnx.load(small_artifact.path / MODEL)
    answers = run_unoptimized(exposed(model, list(held)), read_reference(small_artifact).inputs)
    assert {name for node in model.graph.node for name in node.output} == set(held)
    for name, sample in held.items():
        assert sample.shape == answers[name].shape
        np.testing.assert_allclose(sample.values, trace.sampled(answers[name]), rtol=1e-4, atol=1e-4)


def test_artifacts_without_a_trace_say_what_to_do(small_artifact: Artifact, tmp_path: Path) -> None:
    models = {MODEL: (small_artifact.path / MODEL).read_bytes()}
    old = write_artifact(tmp_path, small_artifact.manifest, models, read_reference(small_artifact))
    done = invoke("validate", str(old.path), "--runtime", "ort:cpu", "--explain")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "trace.npz, which --explain needs; build the artifact again" in " ".join(done.stderr.split())


def test_a_damaged_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / TRACES[MODEL]).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ArtifactError, match="cannot be read"):
        trace.read_npz(tmp_path / TRACES[MODEL])


def test_command_line(correct: Correct, small_artifact: Artifact, tmp_path: Path) -> None:
    fault = next(fault for fault in ALL if fault.name == "padding on the other side")
    made = faulty(fault, correct, small_artifact, tmp_path)
    assert made is not None
    (culprit,) = made[0].culprits
    picture = tmp_path / "layers.svg"
    done = invoke("validate", str(made[1].path), "--runtime", "ort:cpu", "--picture", str(picture))
    assert done.exit_code == 1
    assert f"ort:cpu parity: the first wrong node is {culprit}" in done.stdout
    assert "padding: it stands on the other side" in done.stdout
    drawn = picture.read_text()
    assert drawn.startswith("<svg")
    assert culprit.rpartition("/")[0] in drawn
    assert read_artifact(made[1].path).manifest == made[1].manifest
    refused = invoke("validate", str(made[1].path), "--picture", str(tmp_path / "layers.jpg"))
    assert refused.exit_code == 2
    assert "must end in .svg" in refused.stderr
