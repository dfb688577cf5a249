"""From an artifact and pictures to a narrower artifact and a verdict."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from mbexport import hardware
from mbexport.artifact import Artifact, read_artifact, read_labels, read_reference, write_artifact
from mbexport.errors import (
    ArtifactError,
    EngineError,
    InputError,
    MissingDeviceError,
    MissingPackageError,
    OutputError,
    ProcessError,
)
from mbexport.evaluate import evaluate
from mbexport.pipeline import build, convert
from mbexport.quantize import verdict
from mbexport.quantize.islands import Cpu
from mbexport.quantize.judging import Judging
from mbexport.quantize.kinds import cpu_of, weight_levels
from mbexport.quantize.run import quantize
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.spec import ExportOptions, ModelSpec
from mbexport.validate import validate
from tests import user_models
from tests.colours import colour_artifact, truncated
from tests.fixtures import digits
from tests.measured import HARDWARE
from tests.quantizing import Writer, clocked_as, mobile, mobile_artifact, picture_files

if TYPE_CHECKING:
    from mbexport.errors import MbexportError
    from mbexport.quantize.kinds import Narrow
    from mbexport.quantize.run import QuantizeReport

BOTH = ["ort:cpu", "openvino:cpu"]
ORT = ["ort:cpu"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    clocked_as(monkeypatch, 2.0)


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def constants(artifact: Artifact, name: str = "model.onnx") -> dict[str, Any]:
    graph = onnx.load(artifact.path / name).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained network and its held-out pictures, one folder a digit."""
    folder = tmp_path_factory.mktemp("digits")
    labels = folder / "labels.txt"
    labels.write_text("".join(f"digit{number}\n" for number in range(10)))
    build(digits.SPEC, weights=str(digits.WEIGHTS), out=folder, labels=labels)
    for number, (shown, label) in enumerate(zip(*digits.load_pictures(), strict=True)):
        place = folder / "images" / f"digit{label}" / f"{number:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        # The crop keeps seven eighths of what is resized: a frame of 3 and 4 pixels, at a size that is left as it is.
        Image.fromarray(np.pad(shown.astype(np.uint8), ((3, 4), (3, 4), (0, 0)))).save(place)
    return folder


@pytest.fixture(scope="module")
def digits_report(digits_folder: Path) -> QuantizeReport:
    artifact = read_artifact(digits_folder / digits.SPEC.slug)
    with pytest.MonkeyPatch.context() as patch:
        clocked_as(patch, 2.0)
        return quantize(artifact, digits_folder / "images", BOTH)


def test_digits_lose_half_a_point_at_most(digits_folder: Path, digits_report: QuantizeReport) -> None:
    narrow = read_artifact(digits_folder / f"{digits.SPEC.slug}_int8")
    assert str(narrow.path) == digits_report.artifact
    report = evaluate(narrow, digits_folder / "images", BOTH, threads=2)
    assert report.images == 360
    for row in report.rows:
        assert row.precision == "int8"
        assert row.float32_top1 == pytest.approx(digits.ACCURACY, abs=0.003)  # one picture
        assert row.top1 >= digits.ACCURACY - 0.005
        assert row.agreement is not None
        assert row.agreement >= 0.98
    for each in digits_report.verdicts:
        assert each.go, each.reason
        assert each.top1_drop is not None
        assert abs(each.top1_drop) <= 0.01  # one of the 180 that judged a twin
        assert each.speedup == pytest.approx(2.0)


def test_what_is_written_beside_the_source(digits_folder: Path, digits_report: QuantizeReport) -> None:
    source = read_artifact(digits_folder / digits.SPEC.slug)
    narrow = read_artifact(digits_folder / f"{digits.SPEC.slug}_int8")
    manifest, derivation = narrow.manifest, narrow.manifest.derivation
    assert derivation is not None
    assert (manifest.precision, manifest.slug) == ("int8", f"{source.manifest.slug}_int8")
    assert derivation.source_sha256 == source.sha256
    assert (manifest.input, manifest.outputs) == (source.manifest.input, source.manifest.outputs)
    assert (manifest.spec, manifest.weights) == (source.manifest.spec, source.manifest.weights)
    assert read_labels(narrow) == read_labels(source)
    one, other = read_reference(narrow), read_reference(source)
    for name, truth in other.keras_float64.items():
        assert np.array_equal(one.keras_float64[name], truth)
    images = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (digits_folder / "images").rglob("*.png")}
    assert set(derivation.pictures_sha256) <= images
    assert len(derivation.pictures_sha256) == digits_report.calibrated_on == 256
    assert set(derivation.models) == set(manifest.models.values()) == {"model.onnx", "model_openvino.onnx"}
    for file, described in derivation.models.items():
        found = onnx.load(narrow.path / file)
        onnx.checker.check_model(found, full_check=True)
        names = [node.name for node in found.graph.node]
        assert set(described.islands) <= set(names)
        assert (
            min(high for _, high in described.ranges.values()) >= 0 >= max(low for low, _ in described.ranges.values())
        )
        assert described.sqnr_db["predictions"] is not None
        assert found.graph.input == onnx.load(source.path / "model.onnx").graph.input
        assert found.graph.output == onnx.load(source.path / "model.onnx").graph.output
        metadata = {entry.key: entry.value for entry in found.metadata_props}
        assert metadata["mbexport.precision"] == '"int8"'
        assert source.sha256 in metadata["mbexport.derivation"]
    assert digits_report.models == {
        "ort:cpu": str(narrow.path / "model.onnx"),
        "openvino:cpu": str(narrow.path / "model_openvino.onnx"),
    }


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "images", 40, artifact)
    reports = [quantize(artifact, images, ORT, out=tmp_path / name) for name in ("one", "other")]
    assert listing(tmp_path / "one") == listing(tmp_path / "other")
    assert len(listing(tmp_path / "one")) >= 4
    assert reports[0].verdicts == reports[1].verdicts
    again = quantize(artifact, images, ORT, out=tmp_path / "one")  # takes the older one's place
    assert again == reports[0]
    assert listing(tmp_path / "one") == listing(tmp_path / "other")


def test_labels_judge(tmp_path: Path, fast: None) -> None:
    """Pictures are labelled with float32's own answers: what it loses is what it answers otherwise."""
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "images", 120, artifact)
    report = quantize(artifact, images, BOTH, max_drop=0.5)
    narrow = read_artifact(tmp_path / "mobile_int8")
    assert (report.calibrated_on, report.failed, report.weight_levels is not None) == (120, [], True)
    assert report.notes[0].startswith("accuracy is that of a twin")
    found = evaluate(narrow, images, BOTH, threads=1)
    for each, row in zip(report.verdicts, found.rows, strict=True):
        assert (each.runtime, row.float32_top1) == (row.runtime, 1.0)
        assert each.pictures == 60
        assert each.agreement is not None
        assert each.top1_drop == pytest.approx(1 - each.agreement)
        assert each.agreement == pytest.approx(row.top1, abs=0.08)
        assert each.sqnr_db is not None
        assert 15 < each.sqnr_db < 60
        assert each.go, each.reason
        assert each.model_bytes == (narrow.model_path(each.runtime)).stat().st_size


def test_no_go_where_it_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked_as(monkeypatch, 0.5)
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", 24, artifact), ORT, max_drop=1)
    assert [(each.go, each.better, each.speedup) for each in report.verdicts] == [(False, "f32", 0.5)]
    assert not report.go
    assert read_artifact(tmp_path / "mobile_int8").manifest.precision == "int8"  # a result all the same


def test_pictures_without_labels(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images" / "deeper", 40).parent, ORT, max_drop=0.5)
    (each,) = report.verdicts
    assert (each.top1_drop, each.top1_drop_ci, each.top5_drop, each.rule) == (None, None, None, "expected")
    assert each.agreement is not None
    assert each.agreement > 0.7
    assert each.expected_drop is not None
    assert any("not labelled: accuracy is agreement" in note for note in report.notes)


def test_random_weights_are_judged_by_distance(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path, weights="random")
    report = quantize(artifact, picture_files(tmp_path / "images", 40), ORT)
    assert report.verdicts[0].rule == "sqnr"
    assert any("random weights and features have no accuracy" in note for note in report.notes)
    assert not any("not labelled" in note for note in report.notes)


def test_where_bf16_has_no_distance_nothing_is_judged(tmp_path: Path, fast: None) -> None:
    """A classifier of zeros answers alike in every precision, which says nothing of int8."""
    model = mobile("Relu", top="MatMul")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("logits/"):
            tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    report = quantize(mobile_artifact(tmp_path, model, weights="random"), picture_files(tmp_path / "images", 20), ORT)
    (each,) = report.verdicts
    assert (each.rule, each.go) == ("sqnr", False)
    assert each.reason.startswith("nothing could be judged")
    assert any("random weights and features have no accuracy" in note for note in report.notes)


@pytest.mark.parametrize(("count", "calibrating", "judging"), [(17, 8, 9), (23, 11, 12), (40, 20, 20)])
def test_halves_are_halves(count: int, calibrating: int, judging: int, tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", count), BOTH)
    assert report.calibrated_on == count
    assert [each.pictures for each in report.verdicts] == [judging, judging]
    told = f"twin, calibrated on {calibrating} of the pictures and judged on the other {judging}"
    assert any(note.endswith(told) for note in report.notes)


def test_copies_do_not_judge_what_they_calibrated(tmp_path: Path, fast: None) -> None:
    """Of one picture there is a second file with the same bytes, and one with others that decode to the same."""
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "images", 20)
    for path in list(images.iterdir()):
        (images / f"again_{path.name}").write_bytes(path.read_bytes())
        with Image.open(path) as shown:
            shown.save(images / f"{path.stem}.bmp")
    report = quantize(artifact, images, ORT)
    assert (report.calibrated_on, report.verdicts[0].pictures) == (20, 10)
    assert any("40 pictures show just what others show, and were left out" in note for note in report.notes)


def test_guessed_classes_are_told(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    for number, path in enumerate(sorted(picture_files(tmp_path / "all", 20).iterdir())):
        folder = tmp_path / "images" / "pqrst"[number % 5]
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    report = quantize(artifact, tmp_path / "images", ORT)
    assert report.verdicts[0].top1_drop is not None
    told = "taken as the classes in sorted order: p is class 0, t is class 4"
    assert any(note.endswith(told) for note in report.notes)


def test_few_pictures_are_told(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", 17), ORT)
    assert "17 pictures are few" in report.notes[0]


def test_corrupt_pictures_are_left_out(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "images", 30, artifact)
    folder = next(path for path in images.iterdir())
    broken = [truncated(folder / "broken.jpg"), folder / "zero.png"]
    broken[1].write_bytes(b"")
    report = quantize(artifact, images, ORT)
    assert [each.path for each in report.failed] == sorted(str(path) for path in broken)
    assert report.calibrated_on == 30
    derivation = read_artifact(tmp_path / "mobile_int8").manifest.derivation
    assert derivation is not None
    wrong = {hashlib.sha256(path.read_bytes()).hexdigest() for path in broken}
    assert not wrong & set(derivation.pictures_sha256)
    assert any("2 pictures could not be read and were left out" in note for note in report.notes)


def flat(images: Path) -> Path:
    images.mkdir()
    for shade in range(40):
        Image.new("RGB", (12, 12), (6 * shade,) * 3).save(images / f"{shade}.png")
    return images


def too_few(images: Path) -> Path:
    picture_files(images, 15)
    truncated(images / "broken.jpg")
    return images


def the_same(images: Path) -> Path:
    picture_files(images, 1)
    for number in range(40):
        (images / f"again{number}.png").write_bytes((images / "000.png").read_bytes())
    return images


def no_pictures(images: Path) -> Path:
    images.mkdir()
    (images / "a.txt").write_text("no picture")
    return images


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (flat, "holds 0 different pictures that show something"),
        (
            too_few,
            r"holds 15 different pictures that show something, 1 cannot be read \(.*broken.jpg .*\); at least 16",
        ),
        (the_same, "holds 1 different pictures"),
        (no_pictures, "holds no pictures"),
        (lambda images: images, "is not a folder"),
    ],
)
def test_pictures_that_calibrate_nothing(make: Any, word: str, tmp_path: Path) -> None:
    artifact, images = mobile_artifact(tmp_path), make(tmp_path / "images")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=word) as raised:
        quantize(artifact, images, ORT)
    assert len(str(raised.value).splitlines()) == 1
    assert listing(tmp_path) == before


def with_nan(model: onnx.ModelProto) -> onnx.ModelProto:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "one/depthwise/kernel")
    array = numpy_helper.to_array(tensor).copy()
    array[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.mark.parametrize("precision", ["int8", "f16"])
def test_weights_that_are_no_numbers(precision: Any, tmp_path: Path) -> None:
    artifact = mobile_artifact(tmp_path, with_nan(mobile("Relu", top="MatMul")))
    images = picture_files(tmp_path / "images", 20)
    before = listing(tmp_path)
    with pytest.raises(ArtifactError, match=r"finite.* one/depthwise/kernel|one/depthwise/kernel holds .* not finite"):
        quantize(read_artifact(artifact.path), images, ORT, precision=precision)
    assert listing(tmp_path) == before


def test_a_narrower_artifact_is_refused(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "images", 20)
    quantize(artifact, images, ORT)
    before = listing(tmp_path)
    narrow = read_artifact(tmp_path / "mobile_int8")
    precisions: tuple[Narrow, ...] = ("int8", "f16")
    for precision in precisions:
        with pytest.raises(InputError, match="mobile_int8 is int8 already; give the float32 artifact"):
            quantize(narrow, images, ORT, precision=precision)
    assert listing(tmp_path) == before


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "images", 20)
    (tmp_path / "mobile_int8").mkdir()
    (tmp_path / "mobile_int8" / "thesis.txt").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=r"holds thesis\.txt"):
        quantize(artifact, images, ORT)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("out", ["file", "file/below", "file/far/below"])
def test_a_place_that_cannot_be_written_to_is_told_first(out: str, tmp_path: Path) -> None:
    artifact, images = mobile_artifact(tmp_path), picture_files(tmp_path / "images", 20)
    (tmp_path / "file").write_text("no folder")
    before, steps = listing(tmp_path), list[str]()
    with pytest.raises(OutputError, match=f"cannot write {tmp_path / out}"):
        quantize(artifact, images, ORT, out=tmp_path / out, progress=steps.append)
    assert steps == []
    assert listing(tmp_path) == before


def test_it_is_written_beside_the_path_as_given(tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = mobile_artifact(tmp_path / "store")
    images = picture_files(tmp_path / "images", 20)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "mine").symlink_to(artifact.path, target_is_directory=True)
    quantize(read_artifact(tmp_path / "links" / "mine"), images, ORT)
    assert read_artifact(tmp_path / "links" / "mine_int8").manifest.precision == "int8"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["mobile"]
    (artifact.path / "below").mkdir()
    for folder, given in ((artifact.path, "."), (artifact.path / "below", "..")):
        monkeypatch.chdir(folder)
        report = quantize(read_artifact(Path(given)), images, ORT)
        assert report.artifact == str(tmp_path / "store" / "mobile_int8")


def test_a_contract_that_is_wrong_is_refused(tmp_path: Path) -> None:
    artifact = mobile_artifact(tmp_path)
    wrong = msgspec.structs.replace(artifact.manifest, input=msgspec.structs.replace(artifact.manifest.input, scale=1))
    with pytest.raises(ArtifactError, match="input contract is wrong"):
        quantize(replace(artifact, manifest=wrong), picture_files(tmp_path / "images", 20), ORT)


def test_a_network_of_nothing_but_a_matrix(tmp_path: Path, fast: None) -> None:
    """The colours' network: one product, and no convolution."""
    artifact = colour_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", 20), BOTH)
    assert [each.runtime for each in report.verdicts] == BOTH


@pytest.mark.parametrize(("batch", "count"), [(1, 20), (7, 20), (16, 40), (16, 20), (64, 20), (257, 514)])
def test_static_batches(batch: int, count: int, tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path, batch=batch)
    images = picture_files(tmp_path / "images", count)
    if 2 * batch > count:
        with pytest.raises(InputError, match=f"batches of {batch}.*{2 * batch}"):
            quantize(artifact, images, BOTH)
        assert not (tmp_path / "mobile_int8").exists()
        return
    report = quantize(artifact, images, BOTH)
    assert report.calibrated_on == (batch if batch == 257 else count // batch * batch)  # 256 at most, but one batch
    lost = [note for note in report.notes if "fill no batch" in note]
    assert lost == ([f"{count % batch} pictures fill no batch of {batch} and were left out"] if count % batch else [])
    narrow = read_artifact(tmp_path / "mobile_int8")
    assert narrow.manifest.input.shape[0] == batch
    assert validate(narrow, ORT).passed


@pytest.mark.parametrize(
    ("architecture", "sets", "levels"),
    [
        ("x86_64", ["avx2", "fma"], 63),
        ("x86_64", ["avx2", "avx512f"], 63),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], 127),
        ("x86_64", ["avx2", "avx_vnni"], 127),
        ("x86_64", ["avx2", "amx_int8"], 127),
        ("aarch64", [], 127),
    ],
)
def test_weight_levels(architecture: str, sets: list[str], levels: int) -> None:
    assert weight_levels(architecture, sets) == levels
    assert cpu_of(architecture, sets) == Cpu(levels, bf16=False)


@pytest.mark.parametrize(
    ("found", "amx"), [(["avx512_bf16"], False), (["amx_bf16"], True), (["avx512_bf16", "amx_int8", "amx_bf16"], True)]
)
def test_bf16(found: list[str], *, amx: bool) -> None:
    assert cpu_of("x86_64", ["avx512_vnni", *found]) == Cpu(127, bf16=True, amx=amx)


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({"instruction_sets": ["avx2"]}, 63),
        ({"instruction_sets": ["avx2", "avx512_vnni"]}, 127),
        ({"architecture": "aarch64", "instruction_sets": ["asimddp"]}, 127),
    ],
)
def test_weights_fit_the_instruction_set(
    changes: dict[str, Any], levels: int, tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = msgspec.structs.replace(HARDWARE, **changes)
    monkeypatch.setattr(hardware, "detect", lambda: machine)
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", 20), ORT)
    narrow = read_artifact(tmp_path / "mobile_int8")
    weights = [array for array in constants(narrow).values() if array.dtype == np.int8 and array.ndim > 1]
    assert max(np.abs(array.astype(int)).max() for array in weights) == report.weight_levels == levels
    assert narrow.manifest.derivation is not None
    assert narrow.manifest.derivation.weight_levels == levels
    assert any(re.search("7 bits.*no VNNI", note) for note in report.notes) == (levels == 63)


def test_one_file_where_one_serves_both(tmp_path: Path, fast: None) -> None:
    images = picture_files(tmp_path / "images", 20)
    report = quantize(mobile_artifact(tmp_path), images, BOTH)
    assert {path.rpartition("/")[2] for path in report.models.values()} == {"model.onnx"}


def test_a_file_for_an_engine_that_is_not_here(tmp_path: Path, fast: None) -> None:
    """Written all the same: the artifact may be carried to where it is."""
    artifact = mobile_artifact(tmp_path, mobile(top="Conv"))
    report = quantize(artifact, picture_files(tmp_path / "images", 20), ORT)
    assert list(report.models) == ORT
    narrow = read_artifact(tmp_path / "mobile_int8")
    assert narrow.model_path("openvino:cpu").name == "model_openvino.onnx"
    assert validate(narrow, BOTH).passed


def two_heads() -> onnx.ModelProto:
    """Probabilities, and the map that they are read from."""
    model = mobile("Relu", top="MatMul")
    model.graph.output.append(onnx.helper.make_tensor_value_info("one/raised", onnx.TensorProto.FLOAT, [None] * 4))
    return model


def one_sigmoid() -> onnx.ModelProto:
    write = Writer()
    write.conv("x", "first", (8, 3, 3))
    write.add("Flatten", [write.add("GlobalAveragePool", ["first"], "pooled")], "flat")
    write.add("Sigmoid", [write.dense("flat", "score", 8, 1)], "yes")
    return write.model({"yes": 2})


@pytest.mark.parametrize("make", [two_heads, one_sigmoid, lambda: mobile(top="none")], ids=["two", "sigmoid", "no top"])
def test_other_outputs(make: Any, tmp_path: Path, fast: None) -> None:
    model = make()
    artifact = mobile_artifact(tmp_path, model, labels=None)
    report = quantize(artifact, picture_files(tmp_path / "images", 20), BOTH)
    narrow = read_artifact(tmp_path / "mobile_int8")
    for file in set(narrow.manifest.models.values()):
        found = onnx.load(narrow.path / file)
        onnx.checker.check_model(found, full_check=True)
        assert found.graph.output == model.graph.output
    for each in report.verdicts:
        assert each.sqnr_db is not None
        assert each.sqnr_db > 15
        assert (each.agreement is None) == (make is not two_heads)
    assert validate(narrow, BOTH).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "export"),
    [
        (ModelSpec(variant="v2", alpha=0.35, height=32, width=32, classes=10), ExportOptions(input_type="uint8")),
        (
            ModelSpec(variant="small", alpha=0.35, height=32, width=64, classes=10, minimalistic=True),
            ExportOptions(layout="nchw", batch=2),
        ),
        (
            ModelSpec(variant="small", alpha=0.35, height=32, width=32, include_top=False),
            ExportOptions(preprocess="in-graph"),
        ),
        (
            ModelSpec(variant="large", alpha=0.35, height=32, width=32, include_top=False, pooling="avg"),
            ExportOptions(opset=21),
        ),
        (
            ModelSpec(variant="v2", alpha=0.35, height=32, width=32, include_top=False),
            ExportOptions(layout="nchw", input_type="uint8"),
        ),
    ],
)
def test_forms_of_keras_networks(spec: ModelSpec, export: ExportOptions, tmp_path: Path, fast: None) -> None:
    artifact = build(spec, export=export, out=tmp_path).artifact
    quantize(artifact, picture_files(tmp_path / "images", 24), BOTH)
    narrow = read_artifact(tmp_path / f"{artifact.path.name}_int8")
    assert narrow.manifest.input == artifact.manifest.input
    for file in set(narrow.manifest.models.values()):
        onnx.checker.check_model(onnx.load(narrow.path / file), full_check=True)
    report = validate(narrow, BOTH)
    assert report.passed, [row.reason for row in report.rows]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transfer", "two_heads", "sequential"])
def test_users_own_networks(name: str, tmp_path: Path, fast: None) -> None:
    keras = user_models.keras3()
    model = user_models.two_heads(keras, as_dict=True) if name == "two_heads" else getattr(user_models, name)(keras)
    artifact = convert(user_models.saved(model, tmp_path / "own.keras"), out=tmp_path).artifact
    quantize(artifact, picture_files(tmp_path / "images", 24), BOTH)
    report = validate(read_artifact(tmp_path / f"{artifact.path.name}_int8"), BOTH)
    assert report.passed, [row.reason for row in report.rows]


def test_f16(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path, mobile(top="Conv"))
    images = picture_files(tmp_path / "images", 30, artifact)
    report = quantize(artifact, images, BOTH, precision="f16")
    narrow = read_artifact(tmp_path / "mobile_f16")
    assert (narrow.manifest.precision, report.weight_levels) == ("f16", None)
    kernels = [array for array in constants(narrow).values() if array.ndim == 4]
    assert {array.dtype for array in kernels} == {np.dtype(np.float16)}
    for each in report.verdicts:
        assert each.agreement == 1.0
        assert each.go, each.reason
        assert each.sqnr_db is not None
        assert each.sqnr_db > 40
        assert each.model_bytes < 0.8 * each.float32_model_bytes
    assert validate(narrow, ORT).passed


def test_f16_is_judged_on_pictures_that_it_did_not_look_at(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", 40), ORT, precision="f16")
    derivation = read_artifact(tmp_path / "mobile_f16").manifest.derivation
    assert derivation is not None
    assert len(set(derivation.pictures_sha256)) == report.calibrated_on == 20
    assert report.verdicts[0].pictures == 20


def test_times_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in fresh processes, one pair of them instead of five."""
    monkeypatch.setattr(verdict, "PROCESSES", 1)
    artifact = mobile_artifact(tmp_path)
    report = quantize(artifact, picture_files(tmp_path / "images", 20), ORT, threads=1)
    (each,) = report.verdicts
    assert (each.precision, each.bf16_p50_s) == ("int8", None)
    assert 1e-6 < each.p50_s < 1
    assert each.speedup == pytest.approx(each.float32_p50_s / each.p50_s)
    assert each.speedup_ci == (each.speedup, each.speedup)
    assert each.memory_bytes > 0 < each.float32_memory_bytes


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(EngineError, 1), (ProcessError, 1), (MissingDeviceError, 3), (MissingPackageError, 3)]
)
def test_a_process_that_dies_while_it_measures(
    kind: type[MbexportError], exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(_plan: object) -> None:
        raise kind("the measuring process died")

    monkeypatch.setattr(verdict, "run_worker", dying)
    artifact = mobile_artifact(tmp_path)
    with pytest.raises(kind, match=r"_int8 is whole, but was not timed and has no verdict: the measuring") as raised:
        quantize(artifact, picture_files(tmp_path / "pictures", 40, artifact), ORT)
    assert raised.value.exit_code == exit_code
    assert validate(read_artifact(tmp_path / f"{artifact.path.name}_int8"), ORT).passed


def test_an_older_one_stays_where_judging_fails(tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = mobile_artifact(tmp_path)
    images = picture_files(tmp_path / "pictures", 40, artifact)
    quantize(artifact, images, ORT)
    before = listing(tmp_path)

    def failing(*_: object) -> None:
        raise EngineError("out of memory")

    monkeypatch.setattr(Judging, "change", failing)
    with pytest.raises(EngineError, match="out of memory"):
        quantize(artifact, images, ORT)
    assert listing(tmp_path) == before


def test_hard_swish_spelled_out_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(variant="small", alpha=0.35, height=32, width=32, classes=10)
    artifact = build(spec, export=ExportOptions(opset=13), out=tmp_path).artifact
    with pytest.raises(InputError, match="--opset 14 or newer"):
        quantize(artifact, tmp_path, ORT)


def test_a_file_that_was_damaged_since_is_told(tmp_path: Path, fast: None) -> None:
    """Biases of nothing: the file as it now stands answers so on every engine, but it is not what was made."""
    artifact = mobile_artifact(tmp_path)
    quantize(artifact, picture_files(tmp_path / "pictures", 40, artifact), ORT)
    folder = tmp_path / f"{artifact.path.name}_int8"
    narrow = read_artifact(folder)
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("bias_int32"):
            tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    damaged = write_artifact(
        tmp_path / "damaged",
        narrow.manifest,
        {"model.onnx": model.SerializeToString()},
        read_reference(narrow),
        name=folder.name,
    )
    assert validate(narrow, ORT).passed
    rows = validate(damaged, ORT).rows
    assert not any(row.passed for row in rows)
    assert all("this file as it was made" in row.threshold_origin for row in rows)


def test_an_engine_reads_back_int8(tmp_path: Path, fast: None) -> None:
    artifact = mobile_artifact(tmp_path, mobile(top="Conv"))
    quantize(artifact, picture_files(tmp_path / "images", 20), BOTH)
    narrow = read_artifact(tmp_path / "mobile_int8")
    for target in BOTH:
        engine, device = target.split(":")
        with load_engine(engine).open(narrow.model_path(target), device, SessionOptions(batch=2)) as session:
            assert session.facts().precision == "int8"
