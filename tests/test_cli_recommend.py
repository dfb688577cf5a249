"""``profile recommend`` and ``profile predict`` as a user runs them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from mbexport import hardware, profiles
from mbexport.profiles import profile_path, write_profile
from mbexport.spec import ModelSpec
from mbexport_cli.app import app
from tests.colours import colour_artifact, paint
from tests.measured import HARDWARE, measurement, profile, replicate
from tests.tuned import tuned

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.profile import Hardware, Measurement

ROW = {
    *("artifact", "runtime", "mode", "threads", "batch", "top1", "top1_source", "latency_s", "ci_s", "verdict"),
    *("profile", "precision", "fits", "surely", "reasons", "top1_ci", "top1_precision", "unusual"),
}
RECOMMENDATION = {
    *("hardware", "budget_s", "percentile", "min_top1", "best", "runners_up", "over_budget", "unanswered"),
    *("not_measured", "less_accurate", "unknown_accuracy", "settings", "this_machine", "cpu"),
}
LONGEST = ModelSpec(variant="large", minimalistic=True)
SIDES = (64, 96, 128, 160, 192, 224)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder on the machine of the made-up measurements, with no shipped profiles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "detect", lambda: HARDWARE)
    monkeypatch.setattr(profiles, "shipped_profiles_dir", lambda: tmp_path / "shipped")
    return tmp_path


def store(folder: Path, spec: ModelSpec | None, *rows: Measurement, on: Hardware = HARDWARE) -> None:
    name = spec.slug if spec else "own"
    write_profile(profile_path(folder, on, name), profile(*rows, spec=spec, artifact=name, hardware=on))


def row(median_ms: float, samples: int = 400, **changes: Any) -> Measurement:
    return measurement(replicates=[replicate([round(median_ms * 1e6)] * samples)] * 2, **changes)


def measure_some(here: Path, **changes: Any) -> None:
    """12 networks whose latency is 1 ms for each 25 M of V2's 300 M multiply-accumulates at 224."""
    for variant, millions in (("v2", 300.0), ("large", 217.0)):
        for side in SIDES:
            spec = msgspec.convert({"variant": variant, "height": side, "width": side}, ModelSpec)
            store(here / "profiles", spec, row(millions / 25 * (side / 224) ** 2, **changes))


def test_recommend_json(here: Path) -> None:
    measure_some(here)
    done = invoke("recommend", "--budget-ms", "9", "--min-top1", "70", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() == RECOMMENDATION
    assert (document["hardware"], document["budget_s"], document["percentile"]) == (HARDWARE.slug, 0.009, "p99")
    assert document["min_top1"] == 0.7
    assert document["best"].keys() == ROW
    assert document["best"]["artifact"] == "mobilenet_v3_large_1.0_224"
    assert document["best"]["latency_s"] == pytest.approx(217 / 25e3)
    assert (here / document["best"]["profile"]).is_file()
    assert [each["artifact"] for each in document["runners_up"]] == ["mobilenet_v2_1.0_192"]
    assert document["not_measured"][0].keys() == {"artifact", "top1", "top1_source"}


def test_nothing_fits_exits_1_and_shows_the_nearest(here: Path) -> None:
    measure_some(here)
    done = invoke("recommend", "--budget-ms", "2", "--min-top1", "70")
    assert (done.exit_code, done.stderr) == (1, "")
    assert "no measured network of known accuracy does that" in done.stdout
    assert re.search(r"mobilenet_v3_large_1.0_224 +75.6 +8.68 +\+334%", done.stdout)
    document = json.loads(invoke("recommend", "--budget-ms", "2", "--min-top1", "70", "--json").stdout)
    assert document["best"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "--budget-ms", "0"], "budget must be a finite time above 0 ms, not 0"),
        (["recommend", "--budget-ms", "-2"], "not -2"),
        (["recommend", "--budget-ms", "nan"], "not nan"),
        (["recommend", "--budget-ms", "5", "--percentile", "p95"], "did you mean p99?"),
        (["recommend", "--budget-ms", "5", "--mode", "production "], "did you mean production?"),
        (["recommend", "--budget-ms", "5", "--min-top1", "0.7"], "in percent: 70, not 0.7"),
        (["recommend", "--budget-ms", "5", "--min-top1", "101"], "between 0 and 100 %"),
        (["recommend", "--budget-ms", "5", "--batch", "0"], "batch must be at least 1"),
        (["recommend", "--budget-ms", "5", "--threads", "0"], "threads must be at least 1"),
        (["recommend", "--budget-ms", "5", "--runtime", "tflite:cpu"], "unknown runtime 'tflite:cpu'"),
        (["recommend", "--budget-ms", "5", "--runtime", "ort:cuda"], "nothing was measured on amd-epyc-f25m17-2c"),
        (["recommend", "--budget-ms", "5", "--hardware", "amd-epyc"], "did you mean amd-epyc-f25m17-2c?"),
        (["predict"], "which network?"),
        (["predict", "--variant", "v2", "--runtime", "ort"], "unknown runtime 'ort'"),
        (["predict", "--variant", "v2", "--threads", "9"], "nothing was measured"),
        (["predict", "--variant", "v2", "--hardware", "pixel"], "no profiles of a machine called 'pixel'"),
        (["predict", "--variant", "small"], ": 1 network was measured; a prediction needs 10"),
    ],
)
def test_wrong_questions_are_one_line(arguments: list[str], words: str, here: Path) -> None:
    store(here / "profiles", LONGEST, row(1.0))
    done = invoke(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "words"), [([], "Missing option"), (["--budget-ms", "five"], "Invalid value")])
def test_budget_is_a_number_that_must_be_given(arguments: list[str], words: str) -> None:
    done = invoke("recommend", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert "--budget-ms" in done.stderr


QUESTIONS = [["recommend", "--budget-ms", "5"], ["predict", "--variant", "small"]]


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_profiles_two_machines_and_a_profile_from_the_future(question: list[str], here: Path) -> None:
    def fails(words: str) -> None:
        done = invoke(*question)
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1

    fails("no profiles yet; measure with: mbexport bench ARTIFACT")
    for cpu in ("Two", "Three"):
        store(here / "profiles", LONGEST, row(1.0), on=msgspec.structs.replace(HARDWARE, cpu=cpu))
    fails("this machine (amd-epyc-f25m17-2c) has no profiles; choose another with --hardware: three-")
    store(here / "profiles", LONGEST, row(1.0))
    bigger = msgspec.structs.replace(HARDWARE, memory_bytes=2 * HARDWARE.memory_bytes)
    store(here / "profiles", ModelSpec(variant="small"), row(1.0), on=bigger)
    fails("measured on two machines with the same name")
    path = profile_path(here / "profiles", HARDWARE, LONGEST.slug)
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    fails("Install a newer mbexport")


def test_another_machine_is_called_so(here: Path) -> None:
    store(here / "shipped", LONGEST, row(1.0), on=msgspec.structs.replace(HARDWARE, cpu="Two"))
    done = invoke("recommend", "--budget-ms", "5")
    assert done.exit_code == 0
    assert done.stdout.startswith("on two-f25m17-2c, which is not this machine")


def test_recommendation_fits_80_columns_with_names_and_figures_uncut(here: Path) -> None:
    wide: dict[str, Any] = {"runtime": "openvino:gpu.1", "mode": "production", "precision": "bf16", "threads": 16}
    spread = [replicate([round(each * 1e6)] * 400) for each in (98.0, 99.9, 104.4)]
    store(here / "profiles", LONGEST, measurement(replicates=spread, verdict="noisy", reasons=["steal"], **wide))
    store(here / "profiles", ModelSpec(variant="v2", height=96, width=96), row(99.0, verdict="noisy", **wide))
    store(here / "profiles", ModelSpec(variant="large"), row(1234.5, **wide))
    store(here / "profiles", ModelSpec(variant="small", alpha=0.6), row(99.0, **wide))
    done = invoke("recommend", "--budget-ms", "101", "--percentile", "p50")
    assert done.exit_code == 0
    told = [line for line in done.stdout.splitlines() if not line.startswith("  profiles")]
    assert [line for line in told if len(line.rstrip()) > 80] == []
    assert "not surely: the interval reaches beyond the budget" in done.stdout
    assert "  noisy: steal" in done.stdout.splitlines()
    assert "bf16, not in float32" in done.stdout
    assert re.search(r"mobilenet_v3_large_1.0_224 +75.6\* +1234.50 +\+1122%", done.stdout)
    assert re.search(r"openvino:gpu.1 production bf16, 16 threads +1234.50 to 1234.50", done.stdout)
    assert re.search(r"mobilenet_v3_small_0.6_224 +- ", done.stdout)
    assert "estimate one with: mbexport profile predict --model mobilenet_v2_1.4_224" in done.stdout


@pytest.fixture
def own(here: Path) -> str:
    """A network of one's own, measured with 2 ms beside the others, and evaluated: the path of the report.

    Of four pictures, all but the last show what their folder says.
    """
    measure_some(here)
    artifact = colour_artifact(here / "artifacts")
    name = artifact.manifest.slug
    own = profile(row(2.0), spec=None, artifact=name, artifact_sha256=artifact.sha256)
    write_profile(profile_path(here / "profiles", HARDWARE, name), own)
    for number, colour in enumerate(["red", "green", "blue", "red"]):
        paint(here / "photos" / f"c{number}" / "a.png", colour)
    done = CliRunner().invoke(
        app, ["evaluate", str(artifact.path), "--images", str(here / "photos"), "--runtime", "ort:cpu", "--json"]
    )
    (here / "accuracy.json").write_text(done.stdout)
    return "accuracy.json"


def test_what_evaluate_printed_stands_for_the_artifact(own: str) -> None:
    question = ["recommend", "--budget-ms", "5", "--accuracy", own]
    done = invoke(*question, "--min-top1", "75", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    best = json.loads(done.stdout)["best"]
    assert (best["top1"], best["top1_source"], best["latency_s"]) == (0.75, "measured on 4 images, ort:cpu", 0.002)
    low, high = best["top1_ci"]
    assert 0 < low < 0.75 < high < 1
    assert invoke(*question, "--min-top1", "76").exit_code == 1


def test_measured_accuracy_is_told_with_its_interval_and_that_it_is_of_other_pictures(own: str, here: Path) -> None:
    """Of 3 in 4, Wilson's interval is 30.1 to 95.4 %."""
    told = invoke("recommend", "--budget-ms", "5", "--accuracy", own, "--min-top1", "60").stdout.splitlines()
    assert "  top-1 75 %, measured on 4 images, ort:cpu, 95% interval 30.1 to 95.4 %" in told
    assert "  not surely 60 % or more: the interval reaches below" in told
    mixed = "other top-1 are of ImageNet's pictures: they compare only on the same task"
    assert mixed in told
    beside = invoke("recommend", "--budget-ms", "9", "--accuracy", own).stdout
    assert mixed in beside
    slower = invoke("recommend", "--budget-ms", "1", "--accuracy", own).stdout.splitlines()
    assert [line for line in slower if line.endswith(" was measured on 4 images, ort:cpu")] != []
    assert mixed not in invoke("recommend", "--budget-ms", "9").stdout
    for file in (here / "profiles").rglob("mobilenet_*.json"):
        file.unlink()
    assert mixed not in invoke("recommend", "--budget-ms", "5", "--accuracy", own).stdout


def test_accuracy_files_that_do_not_fit_are_one_line(own: str, here: Path) -> None:
    (here / "other.json").write_text((here / own).read_text().replace('"artifact_sha256": "', '"artifact_sha256": "0'))
    (here / "predicted.json").write_text('{"pictures": [], "failed": []}')
    for file, words in (
        ("other.json", "another file"),
        ("predicted.json", "labelled images"),
        ("absent.json", "cannot be read"),
    ):
        done = invoke("recommend", "--budget-ms", "5", "--accuracy", file, "--json")
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
        assert file in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_rows_that_cannot_answer_are_told(here: Path) -> None:
    store(here / "profiles", LONGEST, row(1.0, samples=300), row(9.0, threads=2))
    done = invoke("recommend", "--budget-ms", "5")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    place = lines.index("cannot answer, 600 samples; p99 needs 662:")
    assert lines[place + 1] == "  mobilenet_v3_large_minimalistic_1.0_224 ort:cpu parity f32, 1 thread"


def test_every_top1_of_another_precision_than_the_rows_is_marked(here: Path) -> None:
    """V2 1.0 at 224 and 192 have 71.8 and 70.7 %, V3 Large 75.6 %, Small 68.1 %, as published in float32."""
    large, small = ModelSpec(variant="large"), ModelSpec(variant="small")
    v2, narrow = ModelSpec(variant="v2"), ModelSpec(variant="v2", height=192, width=192)
    bf16: dict[str, Any] = {"mode": "production", "precision": "bf16"}
    store(here / "profiles", v2, row(4.0))
    store(here / "profiles", narrow, row(3.0, **bf16))
    store(here / "profiles", small, row(1.0))
    store(here / "profiles", large, row(9.0, **bf16))
    told = invoke("recommend", "--budget-ms", "5").stdout
    assert re.search(r"mobilenet_v2_1.0_192 +70.7\* ", told)
    assert re.search(r"mobilenet_v3_small_1.0_224 +68.1 ", told)
    assert re.search(r"mobilenet_v3_large_1.0_224 +75.6\* ", told)
    explained = "* top-1 in float32; the row computes in another precision"
    assert told.splitlines().count(explained) == 1
    assert max(len(line.rstrip()) for line in told.splitlines()) <= 80
    assert "*" not in invoke("recommend", "--budget-ms", "5", "--precision", "f32").stdout


def test_tuned_configurations_are_not_called_nothing(here: Path) -> None:
    question = ("recommend", "--budget-ms", "5", "--profiles")
    store(here / "shipped", LONGEST, row(1.0))
    alone = profile(artifact="one", tuned=[tuned()])
    write_profile(profile_path(here / "alone", HARDWARE, "one"), alone)
    (said,) = invoke(*question, "alone").stderr.splitlines()
    assert said.startswith("nothing of this is from alone, which holds tuned configurations and no rows (measure")
    assert said.endswith("the profiles are those shipped with mbexport")
    (here / "empty").mkdir()
    elsewhere = msgspec.structs.replace(alone, measurements=[row(1.0, scenario="offline")])
    write_profile(profile_path(here / "rows", HARDWARE, "one"), elsewhere)
    for folder in ("empty", "rows"):
        said = f"nothing of this is from {folder}: the profiles are those shipped with mbexport\n"
        assert invoke(*question, folder).stderr == said


def test_predict_json(here: Path) -> None:
    measure_some(here)
    done = invoke("predict", "--variant", "v2", "--alpha", "0.75", "--resolution", "160", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["kind"] == "predicted, not measured"
    assert (document["network"], document["size"]) == ("mobilenet_v2_0.75_160", [160, 160])
    assert abs(document["macs"] / 1e6 - 107) < 1  # as published
    [found] = document["rows"]
    low_s, high_s = found["predicted_interval_s"]
    assert 0 < low_s <= found["predicted_p50_s"] <= high_s
    assert (found["networks"], found["interval_share"], found["measured"]) == (12, 0.9, None)
    assert "p50_s" not in found


def test_prediction_is_never_shown_as_a_measurement(here: Path) -> None:
    wide: dict[str, Any] = {"runtime": "openvino:gpu.1", "mode": "production", "precision": "bf16", "threads": 16}
    measure_some(here, **wide)
    new = invoke("predict", "--variant", "v2", "--alpha", "0.75")
    assert new.exit_code == 0
    assert new.stdout.splitlines()[1].startswith("predicted, not measured; ")
    assert not [line for line in new.stdout.splitlines() if line.startswith("measured ")]
    known = invoke("predict", "--variant", "v2")
    assert "predicted, not measured" in known.stdout
    assert "it was measured: take these figures" in known.stdout
    assert re.search(r"openvino:gpu.1 +production bf16 +16 +12.00 +12.00 to 12.00", known.stdout)
    far = invoke("predict", "--variant", "v2", "--alpha", "3")
    assert "extrapolation, so the intervals may not hold:" in far.stdout
    for done in (new, known, far):
        assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80


def test_settings_with_too_few_networks_are_told(here: Path) -> None:
    measure_some(here)
    store(here / "profiles", LONGEST, row(7.0), row(4.0, threads=2))
    done = invoke("predict", "--variant", "v2", "--alpha", "0.75")
    assert done.exit_code == 0
    assert "no prediction: 1 network was measured; a prediction needs 10" in done.stdout
    assert "  ort:cpu parity f32, 2 threads" in done.stdout.splitlines()


def test_int8_is_no_float32(here: Path) -> None:
    """Neither its accuracy nor its latency comes from the float32 network of the same spec."""
    measure_some(here)
    large = ModelSpec(variant="large")
    int8 = profile(
        row(1.0, precision="int8"), spec=large, artifact=f"{large.slug}_int8", precision="int8", artifact_sha256="bb"
    )
    write_profile(profile_path(here / "profiles", HARDWARE, int8.artifact), int8)
    done = invoke("recommend", "--budget-ms", "2", "--precision", "int8")
    assert done.exit_code == 1
    assert "any mode, int8, any threads" in done.stdout
    assert re.search(r"mobilenet_v3_large_1.0_224_int8 +- +1.00 +fits", done.stdout)
    assert "mbexport evaluate ARTIFACT --images DIR --json > FILE" in done.stdout
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80
    done = invoke("predict", "--variant", "large", "--precision", "int8", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "ort:cpu parity int8, threads 1: 0 networks were measured besides it" in done.stderr
    done = invoke("predict", "--variant", "large", "--json")
    assert [each["precision"] for each in json.loads(done.stdout)["rows"]] == ["f32"]
    for question in ("recommend --budget-ms 5", "predict --variant large"):
        done = invoke(*question.split(), "--precision", "i8")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "unknown --precision 'i8'; did you mean int8?" in done.stderr
