"""How tune judges accuracy: real engines on pictures of which the right answer is known."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import pytest

from mbexport.artifact import write_artifact
from mbexport.errors import EngineError, InputError
from mbexport.manifest import OutputContract
from mbexport.quantize.shown import FEW_PICTURES
from mbexport.reference import Reference
from mbexport.tune.accuracy import judge_all
from mbexport.tune.exactness import require_same_classes
from mbexport.tune.judging import check_sqnr
from mbexport.tune.variants import family, variants_of
from mbexport.tune.yardstick import PictureYardstick, SqnrYardstick, yardstick
from mbexport.tuned import AccuracyCheck
from tests.colours import (
    COLOURS,
    LABELS,
    colour_artifact,
    colour_model,
    contract,
    expected_logits,
    int8_beside,
    paint,
    truncated,
)
from tests.tiny import tiny_artifact
from tests.tuning import photographs

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.tune.accuracy import Accuracies

TARGETS = ["ort:cpu", "openvino:cpu"]
EACH = FEW_PICTURES // 4
DIGITS = list(range(4))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Trained, as far as anyone knows."""
    return colour_artifact(tmp_path / "artifacts", weights="keras-file")


def judged(artifact: Artifact, images: Path | None, max_drop: float = 0.005) -> tuple[Accuracies, list[str]]:
    members, _ = family(artifact)
    stick = yardstick(artifact, members[1:], images, max_drop, 2)
    found = judge_all(variants_of(members, TARGETS), stick, 2, 60.0, lambda _message: None)
    return found, stick.notes


def checks(found: Accuracies) -> dict[tuple[str, str, str, str], AccuracyCheck]:
    return {
        (
            each.variant.artifact.manifest.precision,
            each.variant.model,
            each.variant.target,
            each.variant.mode,
        ): each.check
        for each in found.judged
    }


def test_float32_is_inside_and_its_second_name_is_left_out(artifact: Artifact, tmp_path: Path) -> None:
    """ONNX Runtime's own defaults on a CPU are float32."""
    found, _ = judged(artifact, photographs(tmp_path / "photos", EACH))
    rows = checks(found)
    for target in TARGETS:
        for model in ("model.onnx", "model_openvino.onnx"):
            expected = AccuracyCheck(rule="float32", inside=True, pictures=4 * EACH)
            assert rows["f32", model, target, "parity"] == expected
    assert not any(mode == "production" and target == "ort:cpu" for _, _, target, mode in rows)


def test_labelled_pictures_judge_by_top1(artifact: Artifact, tmp_path: Path) -> None:
    """The int8 network takes green for blue, and half of the pictures show one of them."""
    int8_beside(artifact, swap=(1, 2))
    found, notes = judged(artifact, photographs(tmp_path / "photos", EACH))
    check = checks(found)["int8", "model.onnx", "ort:cpu", "parity"]
    assert (check.rule, check.inside, check.pictures) == ("top-1", False, 4 * EACH)
    assert check.top1_drop == pytest.approx(0.5)
    assert check.agreement == pytest.approx(0.5)
    assert check.fault is not None
    assert "50.00 points" in check.fault
    assert notes == []


def test_a_right_int8_network_is_inside(artifact: Artifact, tmp_path: Path) -> None:
    int8_beside(artifact)
    found, _ = judged(artifact, photographs(tmp_path / "photos", EACH))
    check = checks(found)["int8", "model.onnx", "openvino:cpu", "parity"]
    assert (check.inside, check.top1_drop, check.agreement) == (True, 0.0, 1.0)


def test_other_answers_than_float32s_on_each_engine_count(artifact: Artifact, tmp_path: Path) -> None:
    """A loss that the limit allows is inside it."""
    int8_beside(artifact, swap=(1, 2))
    found, _ = judged(artifact, photographs(tmp_path / "photos", EACH), max_drop=0.7)
    assert all(check.inside for check in checks(found).values())


def test_unlabelled_pictures_judge_by_agreement_and_it_is_said(artifact: Artifact, tmp_path: Path) -> None:
    int8_beside(artifact, swap=(1, 2))
    photographs(tmp_path / "photos", EACH)
    for at, path in enumerate(sorted((tmp_path / "photos").rglob("*.png"))):
        path.rename(tmp_path / "photos" / f"{at}.png")
    for folder in (tmp_path / "photos").glob("*/"):
        folder.rmdir()
    found, notes = judged(artifact, tmp_path / "photos")
    check = checks(found)["int8", "model.onnx", "ort:cpu", "parity"]
    assert (check.rule, check.inside, check.top1_drop) == ("expected", False, None)
    assert check.agreement == pytest.approx(0.5)
    assert any("has no labels: accuracy is agreement with float32" in note for note in notes)


def test_pictures_that_cannot_be_read_are_named_and_the_others_judge(artifact: Artifact, tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", EACH)
    broken = truncated(photos / "c0" / "zz.jpg")
    stick = yardstick(artifact, [], photos, 0.005, 2)
    assert isinstance(stick, PictureYardstick)
    assert [each.path for each in stick.failed] == [str(broken)]
    assert len(stick.pictures) == 4 * EACH


def test_none_that_can_be_read(artifact: Artifact, tmp_path: Path) -> None:
    truncated(tmp_path / "photos" / "c0" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg"):
        yardstick(artifact, [], tmp_path / "photos", 0.005, 1)
    with pytest.raises(InputError, match="does not exist"):
        yardstick(artifact, [], tmp_path / "nowhere", 0.005, 1)


def test_too_few_pictures_leave_it_to_numbers_and_it_is_said(artifact: Artifact, tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "c0" / "a.png", "red")
    stick = yardstick(artifact, [], tmp_path / "photos", 0.005, 1)
    assert isinstance(stick, SqnrYardstick)
    assert not stick.judges_files
    assert any("too few pictures to judge by (1, at least 16 are needed)" in note for note in stick.notes)


def test_a_few_pictures_judge_trained_weights_and_it_is_said(artifact: Artifact, tmp_path: Path) -> None:
    int8_beside(artifact, swap=(1, 2))
    found, notes = judged(artifact, photographs(tmp_path / "photos", 4))
    check = checks(found)["int8", "model.onnx", "ort:cpu", "parity"]
    assert (check.rule, check.inside, check.pictures) == ("top-1", False, 16)
    assert notes == ["only 16 pictures judge: what they show is thin"]


@pytest.mark.parametrize(("weights", "judges"), [("random", True), ("keras-file", False)])
def test_only_random_weights_are_judged_without_pictures(
    weights: Literal["random", "keras-file"], judges: bool, tmp_path: Path
) -> None:
    stick = yardstick(colour_artifact(tmp_path / "artifacts", weights=weights), [], None, 0.005, 1)
    assert stick.judges_files is judges


def test_the_first_of_several_classifiers_is_judged_and_it_is_said(tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path / "artifacts", outputs=("logits", "probabilities"), weights="keras-file")
    stick = yardstick(artifact, [], photographs(tmp_path / "photos", EACH), 0.005, 1)
    assert stick.notes == ["judged by logits alone, not probabilities"]


def test_wrong_float32_answers_to_pictures_are_refused(tmp_path: Path) -> None:
    """Black pixels, as the stored reference has them, look right in a network that takes green for blue."""
    artifact = colour_artifact(tmp_path / "artifacts", weights="keras-file", openvino_swap=(1, 2))
    found, _ = judged(artifact, photographs(tmp_path / "photos", EACH))
    assert {variant.model for variant in found.failed if variant.is_float32} == {"model_openvino.onnx"}
    assert all(f"on {2 * EACH} of {4 * EACH} pictures" in reason for reason in found.failed.values())
    assert {each.variant.model for each in found.judged if each.variant.is_float32} == {"model.onnx"}


@pytest.mark.parametrize("wrong", ["model.onnx", "model_openvino.onnx"])
def test_wrong_float32_answers_to_the_reference_are_refused(wrong: str, artifact: Artifact, tmp_path: Path) -> None:
    """Whichever file it is, the first one that is tried too."""
    taken, other = contract(), {"model.onnx": "model_openvino.onnx", "model_openvino.onnx": "model.onnx"}[wrong]
    colours = np.array(list(COLOURS.values()))
    pixels = np.tile((colours / 127.5 - 1).astype(np.float32)[:, None, None], (1, 32, 32, 1))
    exact = np.stack([expected_logits(tuple(colour)) for colour in colours])
    single = (exact * (1 + 1e-5)).astype(np.float32)  # a noise floor of 100 dB
    reference = Reference({"input": pixels}, {"logits": single}, {"logits": exact})
    models = {other: colour_model(taken, ["logits"]), wrong: colour_model(taken, ["logits"], swap=(1, 2))}
    broken = write_artifact(tmp_path / "broken", artifact.manifest, models, reference, labels=LABELS)
    found, _ = judged(broken, None)
    assert {variant.model for variant in found.failed} == {wrong}
    assert all("gives wrong answers in float32 on the reference inputs" in why for why in found.failed.values())
    assert {each.variant.model for each in found.judged if each.variant.is_float32} == {other}


def test_float32_may_change_a_class_that_is_as_likely() -> None:
    output = OutputContract(name="probabilities", shape=[None, 2], kind="probabilities")
    equal, clear = np.array([[0.501, 0.499]]), np.array([[0.6, 0.4]])
    require_same_classes(output, equal, equal[:, ::-1])
    with pytest.raises(EngineError, match="on 1 of 1 pictures"):
        require_same_classes(output, clear, clear[:, ::-1])


def test_random_weights_are_judged_by_numbers_whatever_pictures_there_are(tmp_path: Path) -> None:
    artifact = colour_artifact(tmp_path / "artifacts", weights="random")
    stick = yardstick(artifact, [], photographs(tmp_path / "photos", 1), 0.005, 1)
    assert isinstance(stick, SqnrYardstick)
    assert any("random weights" in note for note in stick.notes)


def test_calibration_pictures_do_not_judge(artifact: Artifact, tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", EACH + 1)
    calibrated = [hashlib.sha256((photos / f"c{at}" / "0.png").read_bytes()).hexdigest() for at in DIGITS]
    sibling = int8_beside(artifact)
    assert sibling.manifest.derivation is not None
    derivation = msgspec.structs.replace(sibling.manifest.derivation, pictures_sha256=calibrated)
    sibling = int8_beside(artifact, derivation=derivation)
    stick = yardstick(artifact, [sibling], photos, 0.005, 2)
    assert isinstance(stick, PictureYardstick)
    assert len(stick.pictures) == 4 * EACH
    assert any("4 of the pictures calibrated" in note for note in stick.notes)


def test_labels_follow_the_drawn_order(artifact: Artifact, tmp_path: Path) -> None:
    stick = yardstick(artifact, [], photographs(tmp_path / "photos", EACH), 0.005, 2)
    assert isinstance(stick, PictureYardstick)
    assert stick.labels is not None
    brightest = stick.pictures.mean(axis=(1, 2)).argmax(axis=-1)
    coloured = stick.labels != DIGITS[3]
    np.testing.assert_array_equal(brightest[coloured], stick.labels[coloured])
    assert sorted(stick.labels[: 2 * EACH].tolist()) != stick.labels[: 2 * EACH].tolist()


def test_an_engine_that_cannot_run_a_file_is_out_and_says_why(artifact: Artifact, tmp_path: Path) -> None:
    taken = contract()
    swapped = colour_model(taken, ["logits"]).replace(b"ReduceMean", b"ReduceMeam")
    pixels = np.full((1, 32, 32, 3), -1, np.float32)
    exact = np.stack([expected_logits((0, 0, 0))])
    reference = Reference({"input": pixels}, {"logits": exact.astype(np.float32)}, {"logits": exact})
    models = {"model.onnx": colour_model(taken, ["logits"]), "model_openvino.onnx": swapped}
    broken = write_artifact(tmp_path / "broken", artifact.manifest, models, reference, labels=LABELS)
    found, _ = judged(broken, photographs(tmp_path / "photos", EACH))
    assert {variant.model for variant in found.failed} == {"model_openvino.onnx"}
    assert all("ReduceMeam" in reason for reason in found.failed.values())
    assert {each.variant.model for each in found.judged} == {"model.onnx"}


def test_numbers_may_stand_ten_decibels_under_bf16() -> None:
    """Noise of a known share of the signal: 10 log10(1 / share^2) dB."""
    output = OutputContract(name="features", shape=[None, 8], kind="features")
    truth = np.random.default_rng(0).normal(size=(4, 8))
    for noise_db, inside in ((21.0, True), (19.0, False)):
        answers = truth * (1 + 10 ** (-noise_db / 20))
        check = check_sqnr([output], {"features": truth}, {"features": answers}, {"features": 30.0})
        assert check.inside is inside
        assert check.sqnr_db == pytest.approx(noise_db)
        assert check.least_sqnr_db == pytest.approx(20.0)


def test_the_worst_output_counts() -> None:
    outputs = [OutputContract(name=name, shape=[None, 8], kind="features") for name in ("a", "b")]
    truth = np.random.default_rng(0).normal(size=(4, 8))
    answers = {"a": truth, "b": truth * 1.5}
    check = check_sqnr(outputs, {"a": truth, "b": truth}, answers, {"a": 30.0, "b": 30.0})
    assert not check.inside
    assert check.sqnr_db == pytest.approx(20 * np.log10(2))


def test_bf16_of_the_artifact_is_inside_its_own_limit(tmp_path: Path) -> None:
    """Where the CPU has bf16, OpenVINO's defaults use it; elsewhere its second name is left out."""
    found, notes = judged(tiny_artifact(tmp_path), None)
    assert all(check.inside for check in checks(found).values())
    assert any("by SQNR" in note for note in notes)


def test_a_picture_that_is_there_several_times_judges_once(artifact: Artifact, tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", EACH)
    for at in range(3):
        shutil.copy(photos / "c0" / "0.png", photos / "c0" / f"copy{at}.png")
    stick = yardstick(artifact, [], photos, 0.005, 2)
    assert isinstance(stick, PictureYardstick)
    assert len(stick.pictures) == 4 * EACH
    assert "3 pictures show just what others show, and were left out" in stick.notes
