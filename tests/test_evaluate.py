from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mbexport.catalog import find
from mbexport.errors import EngineError, InputError
from mbexport.evaluate import EvaluationReport, evaluate
from mbexport.runtimes import SessionOptions, load_engine, ort
from mbexport.shares import wilson_interval
from mbexport.spec import ExportOptions, ModelSpec
from tests.colours import SIDE_PX, colour_artifact, int8_beside, paint, truncated

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.spec import InputType

BOTH = ["ort:cpu", "openvino:cpu"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures, seven of which show what their folder says."""
    folder = tmp_path / "photos"
    shown = {"c0": ["red", "red", "green"], "c1": ["green"] * 3, "c2": ["blue", "black", "red"], "c3": ["black"]}
    for name, colours in shown.items():
        for number, colour in enumerate(colours):
            paint(folder / name / f"{number}.png", colour)
    return folder


def counted(report: EvaluationReport) -> dict[str, Any]:
    """All but the times."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    return {key: value for key, value in document.items() if key not in {"seconds", "images_per_s"}}


def test_shares(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate(
        colour_artifact(tmp_path), photos, BOTH, threads=2, progress=lambda done, total: seen.append((done, total))
    )
    assert report.images == 10
    assert [(row.runtime, row.top1, row.top5) for row in report.rows] == [(target, 0.7, 1.0) for target in BOTH]
    assert (report.disagreements, report.failed, report.note) == ([], [], None)
    assert seen[-1] == (10, 10)
    assert report.images_per_s == pytest.approx(10 / report.seconds)


def test_top5_counts_the_five_most_probable(tmp_path: Path) -> None:
    """Six classes, whose order for a red picture is 5, 4, 3, 2, 1, 0: the first and the last are told apart."""
    artifact = ordered_artifact(tmp_path)
    for label in range(6):
        paint(tmp_path / "photos" / f"k{label}" / "a.png", "red")
    [row] = evaluate(artifact, tmp_path / "photos", ["ort:cpu"], threads=1).rows
    assert [row.top1, row.top5] == pytest.approx([1 / 6, 5 / 6])


def ordered_artifact(out: Path) -> Artifact:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from mbexport.artifact import read_reference, write_artifact
    from mbexport.labels import Label
    from mbexport.manifest import OutputContract

    basis = colour_artifact(out)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
            helper.make_node("Mul", ["column", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "ramp"], ["logits"]),
        ],
        "ordered",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE_PX, SIDE_PX, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6])],
        [
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(np.zeros((1, 6), np.float32), "zero"),
            numpy_helper.from_array(np.arange(6, dtype=np.float32)[None], "ramp"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    manifest = msgspec.structs.replace(
        basis.manifest, outputs=[OutputContract(name="logits", shape=[None, 6], kind="logits")]
    )
    labels = [Label(id=f"k{index}", name=f"class {index}") for index in range(6)]
    models = {"model.onnx": model, "model_openvino.onnx": model}
    return write_artifact(out, manifest, models, read_reference(basis), labels=labels)


def test_runtimes_that_disagree(photos: Path, tmp_path: Path) -> None:
    """OpenVINO's model takes red for green: of the seven right ones it loses five, and gains the green in c0."""
    artifact = colour_artifact(tmp_path, openvino_swap=(0, 1))
    report = evaluate(artifact, photos, BOTH, threads=2)
    assert [row.top1 for row in report.rows] == [0.7, 0.3]
    paths = [f"c0/{number}" for number in range(3)] + [f"c1/{number}" for number in range(3)] + ["c2/2"]
    assert [each.path for each in report.disagreements] == [str(photos / f"{path}.png") for path in paths]
    first = report.disagreements[0]
    assert (first.expected.index, first.expected.id, first.expected.label) == (0, "c0", "fire red")
    answers = [(answer.runtime, answer.index, answer.label) for answer in first.top1]
    assert answers == [("ort:cpu", 0, "fire red"), ("openvino:cpu", 1, "green")]


def test_a_wrong_colour_order_shows(photos: Path, tmp_path: Path) -> None:
    """The network wants blue first, the contract says red first: red and blue are exchanged."""
    from tests.colours import colour_model, contract

    model = colour_model(contract(colour_order="BGR"), ("logits",))
    [row] = evaluate(colour_artifact(tmp_path, model=model), photos, ["ort:cpu"], threads=1).rows
    assert row.top1 == 0.5  # three green, one black, and the red one in c2


@pytest.mark.parametrize("batch", [None, 1, 4, 16])
def test_threads_and_batches_change_nothing(batch: int | None, photos: Path, tmp_path: Path) -> None:
    truncated(photos / "c1" / "broken.jpg")
    (photos / "c3" / "text.jpg").write_text("no picture")
    shape = [batch, SIDE_PX, SIDE_PX, 3]
    artifact = colour_artifact(tmp_path, openvino_swap=(0, 1), shape=shape)
    one, three = (counted(evaluate(artifact, photos, BOTH, threads=threads)) for threads in (1, 3))
    assert one == three
    assert one["images"] == 10
    assert [row["top1"] for row in one["rows"]] == [0.7, 0.3]
    failed = [str(photos / "c1" / "broken.jpg"), str(photos / "c3" / "text.jpg")]
    assert [each["path"] for each in one["failed"]] == failed


def test_many_pictures_are_each_counted_once(tmp_path: Path) -> None:
    """More than a chunk for each worker."""
    red = paint(tmp_path / "red.png", "red")
    rows = [f"{red.name},{number % 4}" for number in range(101)]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    report = evaluate(colour_artifact(tmp_path), tmp_path / "list.csv", ["ort:cpu"], threads=3)
    assert (report.images, report.rows[0].top1) == (101, 26 / 101)


def test_limit(photos: Path, tmp_path: Path) -> None:
    report = evaluate(colour_artifact(tmp_path), photos, ["ort:cpu"], threads=1, limit=4)
    assert (report.images, report.rows[0].top1) == (4, 1.0)  # the first of each class, all of them right


def test_nothing_can_be_read(tmp_path: Path) -> None:
    truncated(tmp_path / "photos" / "c0" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg cannot be read: .*truncated"):
        evaluate(colour_artifact(tmp_path), tmp_path / "photos", ["ort:cpu"], threads=2)


def test_folders_taken_in_order_are_told(tmp_path: Path) -> None:
    for name, colour in {"a": "red", "b": "green", "c": "blue", "d": "black"}.items():
        paint(tmp_path / "photos" / name / "1.png", colour)
    report = evaluate(colour_artifact(tmp_path, labels=None), tmp_path / "photos", ["ort:cpu"], threads=1)
    assert report.rows[0].top1 == 1
    assert report.note is not None


def test_published_figure(photos: Path, tmp_path: Path) -> None:
    def published(**given: Any) -> float | None:
        return evaluate(colour_artifact(tmp_path, **given), photos, ["ort:cpu"], threads=1, limit=1).published_top1

    spec = ModelSpec(variant="small")
    assert published(spec=spec, weights="keras-file") == 0.681  # Keras's table
    assert published(spec=spec, weights="random") is None
    assert published(weights="keras-file") is None
    own = ModelSpec(variant="small", classes=4)
    assert (find(own), published(spec=own, weights="keras-file")) == (None, None)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 50), (328, 400), (400, 400), (34050, 50000)])
def test_interval_is_scipys(hits: int, count: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_failing_engine_ends_it(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_session: ort.OrtSession, _feeds: object) -> None:
        raise EngineError("out of order")

    artifact, before = colour_artifact(tmp_path), threading.active_count()
    monkeypatch.setattr(ort.OrtSession, "run", fail)
    with pytest.raises(EngineError, match="out of order"):
        evaluate(artifact, photos, ["ort:cpu"], threads=2)
    assert threading.active_count() == before


def test_an_interruption_ends_the_workers(tmp_path: Path) -> None:
    """With ten thousand pictures to go, the workers stop at the chunk that they are at."""
    red = paint(tmp_path / "red.png", "red")
    (tmp_path / "list.csv").write_text(f"{red.name},0\n" * 10_000)
    done: list[int] = []
    before = threading.active_count()

    def interrupt(count: int, _total: int) -> None:
        done.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(colour_artifact(tmp_path), tmp_path / "list.csv", ["ort:cpu"], threads=2, progress=interrupt)
    assert done[0] < 10_000
    assert threading.active_count() == before


def test_a_single_class_is_refused(photos: Path, tmp_path: Path) -> None:
    from mbexport.artifact import Artifact

    artifact = colour_artifact(tmp_path, labels=None)
    output = msgspec.structs.replace(artifact.manifest.outputs[0], shape=[None, 1])
    alone = Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, outputs=[output]))
    with pytest.raises(InputError, match="a single class"):
        evaluate(alone, photos, ["ort:cpu"], threads=1)


REAL = {
    "mobilenet_v3_small_1.0_224": (ModelSpec(variant="small"), 0.82, 0.96),
    "mobilenet_v2_1.0_224": (ModelSpec(variant="v2"), 0.8875, 0.9775),
}


@pytest.mark.slow
@pytest.mark.parametrize("input_type", ["float32", "uint8"])
@pytest.mark.parametrize("name", REAL)
def test_photographs(name: str, input_type: InputType, real_data: Path, tmp_path: Path) -> None:
    """Keras float32 reaches these shares with the same preprocessing; one picture is 0.25 points."""
    from mbexport import pipeline

    spec, top1, top5 = REAL[name]
    weights = str(real_data / "weights" / f"{name}.weights.h5")
    built = pipeline.build(spec, weights=weights, export=ExportOptions(input_type=input_type), out=tmp_path)
    report = evaluate(built.artifact, real_data / "images", BOTH, threads=2)
    assert report.images == 400
    for row in report.rows:
        assert row.top1 == pytest.approx(top1, abs=0.003)
        assert row.top5 == pytest.approx(top5, abs=0.003)
        assert row.top1_ci[0] < top1 < row.top1_ci[1]


def test_precision_is_read_back_and_float32_beside_is_compared(photos: Path, tmp_path: Path) -> None:
    """The int8 file takes red for green: it answers as float32 does to the three of ten that show neither."""
    source = colour_artifact(tmp_path, spec=ModelSpec(variant="small"), weights="keras-file", openvino_swap=(2, 3))
    narrow = int8_beside(source, swap=(0, 1))
    report = evaluate(narrow, photos, BOTH, threads=1)
    ort, openvino = report.rows
    assert (ort.precision, ort.top1, ort.float32_top1, ort.agreement) == ("int8", 0.3, 0.7, 0.3)
    assert ort.agreement_ci == pytest.approx(wilson_interval(3, 10))
    assert ort.top1_drop == pytest.approx(0.4)
    assert ort.top1_drop_ci is not None
    assert ort.top1_drop_ci[0] < 0.4 < ort.top1_drop_ci[1]
    # OpenVINO's float32 file takes blue for black and black for blue: of its seven right ones it loses two, and gains
    # the black in c2
    assert (openvino.top1, openvino.float32_top1, openvino.agreement) == (0.3, 0.6, 0.0)
    assert report.published_top1 is None
    float32 = evaluate(source, photos, ["ort:cpu"], threads=1)
    assert [(row.precision, row.float32_top1, row.agreement) for row in float32.rows] == [("f32", None, None)]
    assert float32.published_top1 == 0.681


def test_production_is_put_beside_float32_where_it_computes_in_less(photos: Path, tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path)
    report = evaluate(artifact, photos, BOTH, threads=1, mode="production")
    assert report.mode == "production"
    for row in report.rows:
        engine = row.runtime.partition(":")[0]
        with load_engine(engine).open(
            artifact.model_path(row.runtime), "cpu", SessionOptions(mode="production")
        ) as session:
            assert row.precision == session.facts().precision
        beside = (row.float32_top1, row.top1_drop, row.agreement)
        assert beside == ((None, None, None) if row.precision == "f32" else (row.top1, 0.0, 1.0))
    assert {row.precision for row in evaluate(artifact, photos, BOTH, threads=1).rows} == {"f32"}


def test_float32_beside_must_be_the_one_that_it_was_made_from(photos: Path, tmp_path: Path) -> None:
    source = colour_artifact(tmp_path)
    narrow = int8_beside(source)
    [row] = evaluate(narrow, photos, ["ort:cpu"], threads=1).rows
    assert row.agreement == 1.0
    broken = truncated(photos / "c0" / "broken.jpg")
    report = evaluate(narrow, photos, ["ort:cpu"], threads=1)
    assert ([each.path for each in report.failed], report.rows[0].agreement) == ([str(broken)], 1.0)
    colour_artifact(tmp_path, openvino_swap=(0, 1), outputs=("logits", "features"))  # another one in its place
    [row] = evaluate(narrow, photos, ["ort:cpu"], threads=1).rows
    assert (row.precision, row.agreement) == ("int8", None)
    source.path.rename(tmp_path / "elsewhere")
    [row] = evaluate(narrow, photos, ["ort:cpu"], threads=1).rows
    assert row.agreement is None
