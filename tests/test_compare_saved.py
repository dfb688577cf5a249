"""Answers from several machines: figures against NumPy's, and what may not be compared."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from mbexport.accuracy.difference import added_db
from mbexport.accuracy.saved import SavedLimit, SavedOutputs, SavedProbe, write_saved
from mbexport.compare import sqnr_db
from mbexport.compare_saved import compare_saved
from mbexport.errors import InputError
from mbexport.manifest import OutputContract
from tests.saved_files import OUTPUT, PROBE, TRUTH, row, saved, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

NOISE = np.array([[0.001, -0.002, 0.001], [0.0, 0.003, -0.003]])


def decibels(signal: Array, noise: Array) -> float:
    return float(20 * np.log10(np.linalg.norm(signal) / np.linalg.norm(noise)))


def test_figures_against_truth_and_first(tmp_path: Path) -> None:
    laptop = write(tmp_path / "laptop.npz", TRUTH + NOISE)
    board = write(tmp_path / "board.npz", TRUTH - 2 * NOISE)
    report = compare_saved([laptop, board])
    one, other = report.rows
    assert (report.passed, report.notes) == (True, [])
    assert (one.file, one.runtime, one.mode, one.batch) == (str(laptop), "ort:cpu", "parity", 2)
    assert one.first is None
    assert one.truth.sqnr_db == pytest.approx(decibels(TRUTH, NOISE))
    assert one.truth.max_abs_error == pytest.approx(0.003)
    assert one.truth.mean_abs_error == pytest.approx(0.01 / 6)
    assert (one.truth.threshold_db, one.truth.threshold_origin) == (40.0, "made up for 40 dB")
    assert other.truth.sqnr_db == pytest.approx(decibels(TRUTH, 2 * NOISE))
    assert other.first is not None
    assert other.first.sqnr_db == pytest.approx(decibels(TRUTH + NOISE, 3 * NOISE))
    assert other.first.max_abs_error == pytest.approx(0.009)
    assert other.first.threshold_db == pytest.approx(20 * math.log10((1 - 0.01) / (0.01 + 0.01)))
    assert (other.first.top1_agreement, other.first.flips) == (1.0, [])


def test_one_file_alone_is_held_to_its_truth(tmp_path: Path) -> None:
    report = compare_saved([write(tmp_path / "a.npz", TRUTH, TRUTH + NOISE)])
    assert report.passed
    assert [each.truth.sqnr_db for each in report.rows] == [None, pytest.approx(decibels(TRUTH, NOISE))]
    assert [each.truth.passed for each in report.rows] == [True, True]


def test_every_file_says_where_it_is_from(tmp_path: Path) -> None:
    (file,) = compare_saved([write(tmp_path / "a.npz", TRUTH)]).files
    assert (file.artifact, file.artifact_sha256, file.cpu) == ("tiny", "a" * 64, "Cortex-A76")
    assert file.hardware == "cortex-a76-4c"
    assert file.versions == {"mbexport": "0.1.0", "onnxruntime": "1.31.1"}


@pytest.mark.parametrize(("one_db", "other_db"), [(20, 20), (6.1, 40), (99.4, 46), (0.5, 0.5)])
def test_added_limit_is_reached_and_never_undercut(one_db: float, other_db: float) -> None:
    """Noise along the truth, on either side of it, is the worst that two rows can do to each other."""
    a, b = 10 ** (-one_db / 20), 10 ** (-other_db / 20)
    worst = sqnr_db(TRUTH * (1 - a), TRUTH * (1 + b))
    assert added_db(one_db, other_db) == pytest.approx(worst)
    rng = np.random.default_rng(0)
    for _ in range(200):
        noises = rng.normal(size=(2, *TRUTH.shape))
        noises *= np.linalg.norm(TRUTH) / np.linalg.norm(noises, axis=(1, 2), keepdims=True)
        assert sqnr_db(TRUTH + a * noises[0], TRUTH + b * noises[1]) >= worst - 1e-9


@pytest.mark.parametrize(("one_db", "other_db"), [(0, 0), (-1e9, 10), (1e9, 1e9), (1e5, -1e5)])
def test_added_limit_is_finite(one_db: float, other_db: float) -> None:
    assert math.isfinite(added_db(one_db, other_db))


def test_probabilities_are_compared_as_logits_and_features_as_they_are(tmp_path: Path) -> None:
    shares = np.exp(TRUTH) / np.exp(TRUTH).sum(axis=-1, keepdims=True)
    moved = np.exp(TRUTH + NOISE) / np.exp(TRUTH + NOISE).sum(axis=-1, keepdims=True)
    files = [
        write(tmp_path / f"{n}.npz", each, truth=shares, kind="probabilities") for n, each in enumerate((shares, moved))
    ]
    found = compare_saved(files).rows[1]
    assert found.first is not None
    assert found.truth.sqnr_db == pytest.approx(decibels(TRUTH, NOISE))
    assert found.first.sqnr_db == pytest.approx(decibels(TRUTH, NOISE))
    files = [
        write(tmp_path / f"{n}.npz", each, truth=shares, kind="features") for n, each in enumerate((shares, moved))
    ]
    found = compare_saved(files).rows[1]
    assert found.truth.sqnr_db == pytest.approx(decibels(shares, moved - shares))
    assert (found.truth.top1_agreement, found.truth.flips) == (None, [])


def test_flips_are_those_between_the_two(tmp_path: Path) -> None:
    """The truth puts class 0 first by 3; the laptop by 1, the board class 1 by 1."""
    laptop, board = TRUTH.copy(), TRUTH.copy()
    laptop[0] = [3.0, 2.0, -5.0]
    board[0] = [2.0, 3.0, -5.0]
    files = [write(tmp_path / "a.npz", laptop, rows=[row(5)]), write(tmp_path / "b.npz", board, rows=[row(60)])]
    one, other = compare_saved(files).rows
    assert one.truth.flips == []
    assert other.first is not None
    for difference, margin, inside in ((other.truth, 3.0, False), (other.first, 1.0, True)):
        (flip,) = difference.flips
        assert (flip.picture, flip.output, flip.expected, flip.got) == ("picture 1", OUTPUT, 0, 1)
        assert flip.margin == pytest.approx(margin)
        assert flip.inside_noise is inside
        assert difference.top1_agreement == 0.5
    assert (other.passed, one.passed) == (False, True)
    assert other.reason == "SQNR 8.5 dB is below 60.0 dB"
    assert other.truth.sqnr_db == pytest.approx(10 * math.log10(56 / 8))  # the truth's squares; 2 and 2 off


def test_other_weights_are_told_and_fail(tmp_path: Path) -> None:
    """Each is right by its own truth; only against each other does it show."""
    other_truth = TRUTH[:, ::-1]
    files = [
        write(tmp_path / "a.npz", TRUTH),
        write(tmp_path / "b.npz", other_truth, truth=other_truth, artifact_sha256="c" * 64),
    ]
    report = compare_saved(files)
    assert [each.truth.passed for each in report.rows] == [True, True]
    assert [each.passed for each in report.rows] == [True, False]
    apart_db = decibels(TRUTH, TRUTH - other_truth)
    assert report.rows[1].reason == f"from the first row: SQNR {apart_db:.1f} dB is below 33.9 dB"
    model, weights = report.notes
    assert "b.npz is of another model.onnx than" in model
    assert "sha256 cccccccccccc, not aaaaaaaaaaaa" in model
    assert f"stand {apart_db:.1f} dB from those" in weights


def test_another_build_of_the_same_weights_is_compared(tmp_path: Path) -> None:
    rounded = TRUTH * (1 + 1e-14)  # float64 on another CPU
    files = [
        write(tmp_path / "a.npz", TRUTH),
        write(tmp_path / "b.npz", TRUTH, truth=rounded, artifact_sha256="c" * 64),
    ]
    report = compare_saved(files)
    assert report.passed
    assert len(report.notes) == 1
    assert "another model.onnx" in report.notes[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (TRUTH * np.nan, "6 of 6 numbers are not finite"),
        (TRUTH[:, :2], "expected shape (2, 3), got (2, 2)"),
        (TRUTH[:1], "expected shape (2, 3), got (1, 3)"),
        (np.zeros((0, 3)), "expected shape (2, 3), got (0, 3)"),
        (np.full((2, 3), np.inf), "6 of 6 numbers are not finite"),
        (None, f"no answer to {PROBE}"),
    ],
)
@pytest.mark.parametrize("kind", ["logits", "features"])
def test_answers_that_cannot_be_right_fail_and_leave_the_others(
    answer: Array | None, reason: str, kind: str, tmp_path: Path
) -> None:
    files = [write(tmp_path / "a.npz", TRUTH, kind=kind), write(tmp_path / "b.npz", TRUTH, answer, kind=kind)]
    report = compare_saved(files)
    assert [each.passed for each in report.rows] == [True, True, False]
    wrong = report.rows[2]
    assert wrong.reason is not None
    assert wrong.reason.startswith(reason)
    assert wrong.first is not None
    assert (wrong.first.passed, wrong.first.sqnr_db, wrong.truth.sqnr_db) == (False, None, None)
    assert "NaN" not in msgspec.json.encode(report).decode()


def test_first_row_that_is_wrong_decides_nothing(tmp_path: Path) -> None:
    report = compare_saved([write(tmp_path / "a.npz", TRUTH * np.nan, TRUTH), write(tmp_path / "b.npz", TRUTH)])
    assert [each.passed for each in report.rows] == [False, True, True]
    assert [each.first and each.first.passed for each in report.rows] == [None, False, False]
    assert report.notes == [f"the first row of {tmp_path / 'a.npz'} failed, so differences from it decide nothing"]


def test_what_validate_failed_stays_failed(tmp_path: Path) -> None:
    """Right answers do not excuse nodes that ran elsewhere."""
    failed = row(passed=False, reason="2 nodes ran on npu instead of cpu")
    (found,) = compare_saved([write(tmp_path / "a.npz", TRUTH, rows=[failed])]).rows
    assert (found.truth.passed, found.passed, found.reason) == (True, False, "2 nodes ran on npu instead of cpu")


def test_worst_of_several_inputs_and_outputs_counts(tmp_path: Path) -> None:
    names = ["reference pictures at 160x96", "reference pictures at 224x224"]
    base = saved(TRUTH)
    limits = {name: {out: SavedLimit(least_db=40.0, origin="") for out in ("one", "two")} for name in names}
    document = msgspec.structs.replace(
        base.document,
        outputs=[OutputContract(name=name, shape=[None, 3], kind="logits") for name in ("one", "two")],
        probes=[SavedProbe(name=name, pictures=["p", "q"], inputs_sha256=name) for name in names],
        rows=[row(limits=limits)],
    )
    answers = {name: {"one": TRUTH, "two": TRUTH} for name in names}
    answers[names[1]] = {"one": TRUTH + NOISE, "two": TRUTH + 2 * NOISE}
    write_saved(
        tmp_path / "a.npz",
        SavedOutputs(document, {name: dict.fromkeys(("one", "two"), TRUTH) for name in names}, [answers]),
    )
    (found,) = compare_saved([tmp_path / "a.npz"]).rows
    assert (found.truth.inputs, found.truth.output) == (names[1], "two")
    assert found.truth.sqnr_db == pytest.approx(decibels(TRUTH, 2 * NOISE))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probes": "c" * 64}, f"other inputs ({PROBE})"),
        ({"kind": "features"}, f"its outputs are {OUTPUT} (features), not {OUTPUT} (logits)"),
    ],
)
def test_unlike_questions_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    if "probes" in change:
        probe = saved(TRUTH).document.probes[0]
        change = {"probes": [msgspec.structs.replace(probe, inputs_sha256=change["probes"])]}
    first, other = write(tmp_path / "a.npz", TRUTH), write(tmp_path / "b.npz", TRUTH, **change)
    with pytest.raises(InputError) as raised:
        compare_saved([first, other])
    assert f"{other} cannot be compared with {first}" in str(raised.value)
    assert words in str(raised.value)


def test_same_file_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    (tmp_path / "link.npz").symlink_to(path)
    for again in (path, tmp_path / "link.npz"):
        with pytest.raises(InputError, match="is the same file as"):
            compare_saved([path, again])


def test_needs_numpy_and_msgspec_alone(tmp_path: Path) -> None:
    """The whole command, where no runtime and nothing else of the base install can be imported."""
    files = [str(write(tmp_path / f"{name}.npz", TRUTH + NOISE)) for name in ("laptop", "board")]
    absent = (
        *("onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "tensorflow", "keras", "tf2onnx", "PIL"),
        *("psutil", "scipy", "cpuinfo", "h5py", "google"),
    )
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        f"sys.argv = ['mbexport', 'compare', *{files!r}, '--json']\n"
        "from mbexport_cli.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["rows"][1]["truth"]["sqnr_db"] == pytest.approx(decibels(TRUTH, NOISE))
    assert document["rows"][1]["first"]["sqnr_db"] is None
    assert document["rows"][1]["first"]["passed"] is True
