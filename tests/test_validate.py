from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
import pytest
from onnx import helper, numpy_helper

from mbexport import thresholds
from mbexport.accuracy.chance import chance_db
from mbexport.artifact import read_reference, write_artifact
from mbexport.errors import ArtifactError, EngineError
from mbexport.reference import Reference
from mbexport.runtimes import ENGINES, SessionFacts
from mbexport.validate import Checks, ValidationReport, validate
from tests.tiny import CLASSES, TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputKind

TARGETS = ["ort:cpu", "openvino:cpu"]
PARITY = Checks(modes=("parity",))
ALL_KINDS: tuple[OutputKind, ...] = ("features", "logits", "probabilities")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_right_graph_passes(target: str, kind: OutputKind, tmp_path: Path) -> None:
    report = validate(tiny_artifact(tmp_path, TinyNetwork(outputs=(kind,))), [target], PARITY, threads=1)
    (row,) = report.rows
    assert row.reason is None
    assert report.passed
    assert row.passed
    assert row.sqnr_db is not None
    assert row.sqnr_db > row.threshold_db > 100
    assert row.top1_agreement == (None if kind == "features" else 1.0)
    assert row.max_abs_error is not None
    assert 0 < row.max_abs_error < 1e-4
    assert (row.runtime, row.mode) == (target, "parity")
    assert (row.precision.requested, row.precision.effective) == ("f32", "f32")
    assert list(row.placement) == ["cpu"]


def scaled_weight(model: onnx.ModelProto) -> None:
    edit(model, "kernel", lambda kernel: kernel * np.where(np.arange(8) == 3, 1.001, 1.0)[:, None, None, None])


def swapped_channel(model: onnx.ModelProto) -> None:
    edit(model, "kernel", lambda kernel: kernel[:, ::-1])


def not_finite(model: onnx.ModelProto) -> None:
    edit(model, "bias", lambda bias: bias + np.array([np.nan, 0, 0, 0, 0]))


def mixed_up_batch(model: onnx.ModelProto) -> None:
    """Every answer is right and belongs to another picture."""
    for name, value in (("last", -1), ("first", -100), ("axis", 0), ("step", -1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    model.graph.node[0].input[0] = "reversed"
    model.graph.node.insert(0, helper.make_node("Slice", ["input", "last", "first", "axis", "step"], ["reversed"]))


def edit(model: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    wrong = np.ascontiguousarray(change(numpy_helper.to_array(tensor)), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wrong, name))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("fault", [scaled_weight, swapped_channel, not_finite, mixed_up_batch])
def test_wrong_graph_fails(target: str, fault: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    model = TinyNetwork().onnx_model()
    fault(model)
    report = validate(tiny_artifact(tmp_path, model=model.SerializeToString()), [target], PARITY)
    (row,) = report.rows
    assert not report.passed
    assert not row.passed
    if fault is not_finite:
        assert (row.sqnr_db, row.max_abs_error) == (None, None)
        assert "not finite" in str(row.reason)
    else:
        assert row.sqnr_db is not None
        assert row.sqnr_db < row.threshold_db
        assert f"SQNR {row.sqnr_db:.1f} dB" in str(row.reason)


def appended(kind: OutputKind, operator: str, value: float, network: TinyNetwork | None = None) -> bytes:
    """The right network with one operator too many before its output."""
    model = (network or TinyNetwork(outputs=(kind,))).onnx_model()
    place = next(place for place, node in enumerate(model.graph.node) if node.output[0] == kind)
    model.graph.node[place].output[0] = "inner"
    model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.float32), "value"))
    model.graph.node.insert(place + 1, helper.make_node(operator, ["inner", "value"], [kind]))
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("kind", "operator"), [("logits", "Add"), ("probabilities", "Mul")])
def test_what_centring_would_hide_fails(target: str, kind: OutputKind, operator: str, tmp_path: Path) -> None:
    """All logits moved alike, or all probabilities scaled alike, leave the centred logits as they were."""
    artifact = tiny_artifact(tmp_path, TinyNetwork(outputs=(kind,)), model=appended(kind, operator, 1.5))
    (row,) = validate(artifact, [target], PARITY).rows
    assert not row.passed
    if kind == "probabilities":
        assert "do not sum to 1: off by 0.5" in str(row.reason)


def test_worst_output_counts(tmp_path: Path) -> None:
    network = TinyNetwork(outputs=ALL_KINDS)
    assert validate(tiny_artifact(tmp_path, network), TARGETS, PARITY).passed
    model = network.onnx_model()
    edit(model, "bias", lambda bias: bias + np.array([0.01, 0, 0, 0, 0]))  # leaves the features right
    for row in validate(tiny_artifact(tmp_path, network, model=model.SerializeToString()), TARGETS, PARITY).rows:
        assert not row.passed
        assert row.max_abs_error == pytest.approx(0.01, rel=1e-3)  # of the logits, where nothing dilutes it


def test_missing_output_is_named(tmp_path: Path) -> None:
    network = TinyNetwork(outputs=("features", "logits"))
    model = TinyNetwork(outputs=("features",)).onnx_model().SerializeToString()
    for row in validate(tiny_artifact(tmp_path, network, model=model), TARGETS, PARITY).rows:
        assert not row.passed
        assert row.reason == "the model has no output logits, only features"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("batch", "count"), [(1, 3), (2, 3), (2, 4), (4, 3), (None, 1)])
def test_static_and_dynamic_batches(target: str, batch: int | None, count: int, tmp_path: Path) -> None:
    report = validate(tiny_artifact(tmp_path, batch=batch, count=count), [target], PARITY)
    assert report.passed, report.rows


def test_one_class_is_always_certain(tmp_path: Path) -> None:
    """Softmax over one class is 1 whatever comes in: bit-equal, nothing to agree on, and nothing proven."""
    for row in validate(tiny_artifact(tmp_path, one_class()), TARGETS, PARITY).rows:
        assert (row.passed, row.sqnr_db, row.top1_agreement, row.max_abs_error) == (True, None, None, 0.0)
        assert "proves nothing" in str(row.reason)
        assert "--classifier-activation none" in str(row.reason)


def one_class() -> TinyNetwork:
    network = TinyNetwork()
    network.weights |= {name: network.weights[name][..., :1] for name in ("matrix", "bias")}
    return network


def test_one_class_is_compared_with_1_itself(tmp_path: Path) -> None:
    """An answer whose sum is near enough to 1, and that is yet not 1."""
    model = appended("probabilities", "Mul", 1 + 1e-5, one_class())
    for row in validate(tiny_artifact(tmp_path, one_class(), model=model), TARGETS, PARITY).rows:
        assert not row.passed
        assert row.max_abs_error == pytest.approx(1e-5, rel=0.01)
        assert row.sqnr_db == pytest.approx(100, abs=0.1)  # -20 log10(1e-5)


@pytest.mark.parametrize("kind", ["features", "logits"])
def test_reference_without_any_signal_says_so(kind: OutputKind, tmp_path: Path) -> None:
    network = TinyNetwork(outputs=(kind,))
    network.weights = {name: np.zeros_like(array) for name, array in network.weights.items()}
    for row in validate(tiny_artifact(tmp_path, network), TARGETS, PARITY).rows:
        assert row.passed
        assert f"{kind} carry no signal" in str(row.reason)


def test_output_that_proves_little_is_the_one_that_is_told(tmp_path: Path) -> None:
    network = TinyNetwork(outputs=("logits", "probabilities"), weights=one_class().weights)
    for row in validate(tiny_artifact(tmp_path, network), TARGETS, PARITY).rows:
        assert row.passed
        assert "proves nothing" in str(row.reason)


def test_manifest_without_an_input_shape_is_refused(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    contract = msgspec.structs.replace(artifact.manifest.input, shape=[])
    shapeless = replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, input=contract))
    with pytest.raises(ArtifactError, match="input no shape; build the artifact again"):
        validate(shapeless, TARGETS, PARITY)


def test_report_is_finite_json_with_the_promised_keys(tmp_path: Path) -> None:
    model = TinyNetwork().onnx_model()
    not_finite(model)
    report = validate(tiny_artifact(tmp_path, model=model.SerializeToString()), TARGETS, PARITY)
    document = msgspec.json.decode(msgspec.json.encode(report))
    assert set(document) == {"passed", "rows", "sizes", "batches", "coverage", "golden", "images", "explanations"}
    assert set(document["rows"][0]) >= {
        "runtime",
        "mode",
        "precision",
        "placement",
        "sqnr_db",
        "max_abs_error",
        "top1_agreement",
        "threshold_db",
        "passed",
        "reason",
    }
    assert set(document["rows"][0]["precision"]) == {"requested", "effective"}


class Double:
    """A runtime that answers rightly and, in one way that the test chooses, does not do what it was asked."""

    package = "double"
    artifact: Artifact
    said = SessionFacts(precision="f32", placement={"cpu": 5})
    failure: EngineError | None = None

    def open(self, model: Path, device: str, options: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self.failure is not None:
            raise self.failure
        return dict(read_reference(self.artifact).keras_float32)

    def facts(self) -> SessionFacts:
        return self.said


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Artifact:
    """An artifact that the engine ``double`` knows the answers to."""
    monkeypatch.setitem(ENGINES, "double", f"{__name__}:Double")
    artifact = tiny_artifact(tmp_path)
    monkeypatch.setattr(Double, "artifact", artifact, raising=False)
    return artifact


@pytest.mark.parametrize(
    ("device", "changes", "reason"),
    [
        ("cpu", {"precision": "bf16"}, "f32 was asked for, the engine computed in bf16"),
        ("cpu", {"placement": {"cpu": 3, "npu": 2}}, "2 nodes ran on npu instead of cpu"),
        ("gpu.1", {"placement": {"gpu.0": 5}}, "5 nodes ran on gpu.0 instead of gpu.1"),
        ("gpu", {"placement": {"gpu.0": 5}}, None),
        ("auto", {"placement": {"npu": 5}}, None),
    ],
)
def test_right_answers_do_not_excuse_another_precision_or_device(
    device: str, changes: dict[str, Any], reason: str | None, monkeypatch: pytest.MonkeyPatch, doubled: Artifact
) -> None:
    monkeypatch.setattr(Double, "said", replace(Double.said, **changes))
    (row,) = validate(doubled, [f"double:{device}"], PARITY).rows
    assert (row.passed, row.reason) == (reason is None, reason)
    assert row.sqnr_db is not None
    (output,) = doubled.manifest.outputs
    by_chance_db = chance_db(output, read_reference(doubled).keras_float64[output.name])  # of 3 pictures, 5 classes
    assert row.sqnr_db == pytest.approx(row.threshold_db + max(by_chance_db, thresholds.F32_MARGIN_DB))


def test_engine_that_fails_makes_a_row_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, doubled: Artifact
) -> None:
    monkeypatch.setattr(Double, "failure", EngineError("double:cpu failed while running: out of memory"))
    told: list[str] = []
    report = validate(doubled, ["double:cpu", *TARGETS], PARITY, progress=told.append)
    assert [row.passed for row in report.rows] == [False, True, True]
    assert report.rows[0].reason == "double:cpu failed while running: out of memory"
    assert report.rows[0].precision.effective == "f32"  # it was loaded, and said so
    assert not report.passed
    assert told == [f"{target} parity" for target in ("double:cpu", *TARGETS)]


@pytest.mark.parametrize("error", [0.01, np.nan])
def test_reference_that_proves_nothing_is_refused(error: float, tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    reference = read_reference(artifact)
    change = np.full((3, CLASSES), [error, 0, 0, 0, 0], np.float32)
    noisy = {name: array + change for name, array in reference.keras_float32.items()}
    write_artifact(
        tmp_path,
        artifact.manifest,
        {"model.onnx": (artifact.path / "model.onnx").read_bytes()},
        Reference(reference.inputs, noisy, reference.keras_float64),
    )
    with pytest.raises(ArtifactError, match="proves nothing"):
        validate(artifact, TARGETS, PARITY)


def test_needs_no_tensorflow_and_prints_nothing(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    code = (
        "import sys; from pathlib import Path; from mbexport.artifact import read_artifact;"
        "from mbexport.validate import validate;"
        f"assert validate(read_artifact(Path({str(artifact.path)!r})), {TARGETS!r}).passed;"
        "assert not {'tensorflow', 'keras', 'tf2onnx', 'scipy', 'rich', 'typer'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_validated_is_not_a_pass(tmp_path: Path) -> None:
    assert validate(tiny_artifact(tmp_path), [], PARITY) == ValidationReport(
        passed=False, rows=[], sizes=[(8, 8)], batches=[3, 1]
    )


def test_a_limit_that_lets_everything_pass(tmp_path: Path) -> None:
    """So low that the noise it allows is no float."""
    report = validate(tiny_artifact(tmp_path), TARGETS, Checks(min_sqnr_db=-7000))
    assert report.passed
    assert {row.threshold_origin for row in report.rows} == {"asked for with --min-sqnr"}
    assert {row.reason for row in report.rows} == {None}


def test_max_flips(tmp_path: Path) -> None:
    network = TinyNetwork(outputs=("logits",))
    model = network.onnx_model()
    edit(model, "bias", np.flip)
    artifact = tiny_artifact(tmp_path, network, model=model.SerializeToString())
    (row,) = validate(artifact, ["ort:cpu"], Checks(modes=("parity",), min_sqnr_db=-100)).rows
    truth = read_reference(artifact).keras_float64["logits"]
    moved = truth - network.weights["bias"] + network.weights["bias"][::-1]
    expected = {
        f"reference picture {number}": (int(old), int(new))
        for number, (old, new) in enumerate(zip(truth.argmax(-1), moved.argmax(-1), strict=True), start=1)
        if old != new
    }
    assert expected
    assert {flip.picture: (flip.expected, flip.got) for flip in row.flips} == expected
    for flip in row.flips:
        answers = truth[int(flip.picture.rpartition(" ")[2]) - 1]
        assert flip.margin == pytest.approx(answers[flip.expected] - answers[flip.got], rel=1e-5)
    for most, passed in ((len(expected), True), (len(expected) - 1, False)):
        asked = Checks(modes=("parity",), min_sqnr_db=-100, max_flips=most)
        assert validate(artifact, ["ort:cpu"], asked).passed is passed
