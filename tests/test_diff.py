"""Two profiles compared: the statistic against hand-made truths, and what may be compared with what."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbexport import thresholds
from mbexport.analysis.alike import Subject, subject_of
from mbexport.analysis.change import change_of
from mbexport.analysis.diff import diff
from mbexport.errors import DocumentError, InputError
from mbexport.profile import Conditions
from mbexport.profiles import profile_path, write_profile
from tests.measured import HARDWARE, measurement, profile, replicate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mbexport.profile import LatencyProfile, Measurement

WIDER = 1 + thresholds.DIFF_RUN_TO_RUN_SHARE
QUIET_MS = (2.00, 2.01, 2.02, 2.03, 2.04)
OTHER_WAY = {"slower": "faster", "faster": "slower", "same": "same", "too noisy to tell": "too noisy to tell"}


def row(p50s_ms: Sequence[float] = QUIET_MS, **changes: Any) -> Measurement:
    """A row whose processes have these p50s, with 200 samples each that spread a little to both sides."""
    return measurement(
        replicates=[
            replicate([round(p50_ms * 1e6) + offset for offset in range(-1000, 1000, 10)]) for p50_ms in p50s_ms
        ],
        **changes,
    )


def times(p50s_ms: Sequence[float], factor: float) -> list[float]:
    return [p50_ms * factor for p50_ms in p50s_ms]


def stored(path: Path, *rows: Measurement, **changes: Any) -> Path:
    write_profile(path, profile(*rows, **changes))
    return path


def both(tmp_path: Path, a: LatencyProfile, b: LatencyProfile) -> tuple[Path, Path]:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, one in zip(paths, (a, b), strict=True):
        write_profile(path, one)
    return paths


# The statistic.


def test_ratio_and_interval_by_hand() -> None:
    change = change_of([104.5, 102.0, 100.0, 101.0, 103.0], [113.0, 110.0, 114.5, 112.0, 111.0], 0.05)
    assert change.ratio == pytest.approx((110 * 111 * 112 / (100 * 101 * 102)) ** (1 / 3))
    assert change.ratio_ci == pytest.approx((110 / 102 / WIDER, 112 / 100 * WIDER))
    assert (change.verdict, change.reason) == ("slower", None)


def test_three_processes_must_stand_apart_as_a_whole() -> None:
    apart = change_of([1.00, 1.01, 1.02], [1.10, 1.11, 1.12], 0.05)
    assert apart.ratio_ci == pytest.approx((1.10 / 1.02 / WIDER, 1.12 / 1.00 * WIDER))
    assert apart.verdict == "slower"
    assert change_of([1.00, 1.01, 1.04], [1.08, 1.09, 1.10], 0.05).verdict == "slower"
    assert change_of([1.00, 1.01, 1.04], [1.04, 1.09, 1.09], 0.05).verdict == "too noisy to tell"


def test_interval_excludes_1_by_chance_in_21_of_252_orders_on_each_side() -> None:
    values = [1.005**place for place in range(10)]
    above = below = 0
    for chosen in combinations(range(10), 5):
        a, b = ([value for place, value in enumerate(values) if (place in chosen) == mine] for mine in (True, False))
        interval = change_of(a, b, 0.0).ratio_ci
        assert interval is not None
        above, below = above + (interval[0] * WIDER > 1), below + (interval[1] / WIDER < 1)
    assert (above, below) == (21, 21)


@pytest.mark.parametrize(
    ("last_ms", "share"),
    [(2.09, thresholds.DIFF_RUN_TO_RUN_SHARE), (2.12, 0.06), (2.3, 0.15), (9.0, thresholds.DIFF_MOST_RUN_TO_RUN_SHARE)],
)
def test_runs_may_differ_by_what_processes_differ(last_ms: float, share: float) -> None:
    """Whichever side it is that is not steady, and only by a change that is larger than that too."""
    unsteady = [*QUIET_MS[:3], last_ms, 9.0]
    for a, b in ((unsteady, [2.0] * 5), ([2.0] * 5, unsteady)):
        interval = change_of(a, b, 0.05).ratio_ci
        assert interval is not None
        top = 2.02  # the greatest of the unsteady side's lower half
        expected = (2.0 / top, 1.0) if a is unsteady else (1.0, top / 2.0)
        assert interval == pytest.approx((expected[0] / (1 + share), expected[1] * (1 + share)))
    quiet = (2.0 * 2.01 * 2.02) ** (1 / 3)
    over = 1.05 * (1 + share) / 2.0 * quiet  # 2.0 x this is just at the limit
    assert change_of(unsteady, [2.0 * over * 1.001] * 5, 0.05).verdict == "slower"
    assert change_of(unsteady, [2.0 * over * 0.999] * 5, 0.05).verdict == "too noisy to tell"


@pytest.mark.parametrize(("disturbed", "factor", "of_equals"), [(1, 1.1, "same"), (2, 1.4, "too noisy to tell")])
def test_one_disturbed_process_hides_no_slowdown_and_two_no_large_one(
    disturbed: int, factor: float, of_equals: str
) -> None:
    a = [*QUIET_MS[: 5 - disturbed], *[3.0, 9.0][:disturbed]]
    assert change_of(a, times(QUIET_MS, factor), 0.05).verdict == "slower"
    assert change_of(a, times(a, factor), 0.05).verdict == "slower"
    assert change_of(QUIET_MS, a, 0.05).verdict == of_equals


def test_slow_in_most_processes_is_not_the_same() -> None:
    assert change_of(QUIET_MS, [2.0, 2.0, 2.3, 2.3, 2.3], 0.05).verdict == "too noisy to tell"


@pytest.mark.parametrize(
    ("factor", "threshold", "verdict"),
    [
        (1.00, 0.05, "same"),
        (1.01, 0.05, "same"),
        (1.07, 0.05, "slower"),
        (1 / 1.07, 0.05, "faster"),
        (1.07, 0.20, "same"),
        (1.30, 0.20, "slower"),
        (1.051, 0.05, "too noisy to tell"),  # two runs may differ by more than the 0.1% over
        (1.00, 0.005, "too noisy to tell"),  # and by more than half a percent
        (1.02, 0.0, "slower"),
    ],
)
def test_verdict_of_quiet_processes(factor: float, threshold: float, verdict: str) -> None:
    exact = [2.0] * 5
    change = change_of(exact, times(exact, factor), threshold)
    assert [change.ratio, change.verdict] == [pytest.approx(factor), verdict]


def test_wide_interval_is_called_noise_and_its_cause_is_told() -> None:
    change = change_of([2.0, 2.1, 2.3, 2.4, 2.5], [2.0, 2.15, 2.3, 2.5, 3.0], 0.05)
    assert change.verdict == "too noisy to tell"
    assert change.reason is not None
    for words in ("5%", "-30.4% to +43.8%", "25% in A", "50% in B"):  # 2.0/2.3/1.25, 2.3/2.0x1.25
        assert words in change.reason


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_processes_tell_nothing(count: int) -> None:
    change = change_of(QUIET_MS, [9.0] * count, 0.05)
    assert (change.ratio_ci, change.verdict) == (None, "too noisy to tell")
    assert change.reason is not None
    assert f"5 and {count} processes" in change.reason


_P50S = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=8)


@given(_P50S, _P50S, st.floats(0.0, 0.5))
def test_other_way_round_and_in_another_unit(a: list[float], b: list[float], threshold: float) -> None:
    there, back = change_of(a, b, threshold), change_of(b, a, threshold)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert back.verdict == OTHER_WAY[there.verdict]
    if there.ratio_ci and back.ratio_ci:
        assert there.ratio_ci == pytest.approx((1 / back.ratio_ci[1], 1 / back.ratio_ci[0]))
    assert change_of(times(a, 1024.0), times(b, 1024.0), threshold).verdict == there.verdict


@pytest.mark.parametrize("disturbed", [0.0, 0.1])
def test_false_alarms_and_caught_slowdowns(disturbed: float) -> None:
    """Two runs 1% apart, their processes 1%, and a share of those disturbed by 10% on average: 300 draws of each.

    If the true rates were the bars, 1 and 95 in 100, more than 9 alarms or fewer than 273 catches would come up once
    in 1000 (binomial). Disturbed processes cost catches and bring no alarm.
    """
    rng = np.random.default_rng(6)
    shape = (300, 5)

    def run() -> np.ndarray[Any, Any]:
        hit = (rng.random(shape) < disturbed) * rng.exponential(0.1, shape)
        return np.exp(0.01 * rng.standard_normal(shape) + hit + 0.01 * rng.standard_normal((300, 1)))

    a, b = run(), run()

    def verdicts(factor: float) -> list[str]:
        return [change_of(x, y, 0.05).verdict for x, y in zip(a.tolist(), (factor * b).tolist(), strict=True)]

    assert sum(verdict in {"slower", "faster"} for verdict in verdicts(1.0)) <= 9
    if not disturbed:
        assert verdicts(1.1).count("slower") >= 273
        assert verdicts(1.2).count("slower") == 300
        assert verdicts(1 / 1.2).count("faster") == 300


def test_runs_that_moved_as_a_whole_raise_no_alarm() -> None:
    """As on a shared machine: processes differ by 7%, and runs by 4% (standard deviations)."""
    rng = np.random.default_rng(7)
    a, b = (
        np.exp(0.07 * rng.standard_normal((300, 5)) + 0.04 * rng.standard_normal((300, 1))).tolist() for _ in range(2)
    )
    found = [change_of(x, y, 0.05).verdict for x, y in zip(a, b, strict=True)]
    assert sum(verdict in {"slower", "faster"} for verdict in found) <= 9


# What may be compared with what.


def test_rows_carry_both_sides_figures(tmp_path: Path) -> None:
    a, b = both(tmp_path, profile(row()), profile(row(times(QUIET_MS, 1.1))))
    report = diff(a, b)
    (found,) = report.rows
    assert (found.artifact, found.runtime, found.mode, found.threads) == ("tiny", "ort:cpu", "parity", 1)
    assert (found.batch, found.scenario, found.concurrency) == (1, "single-stream", 1)
    assert [found.a_p50_s, found.b_p50_s] == pytest.approx([2.02e-3, 2.222e-3], rel=1e-4)
    assert found.a_p99_s == pytest.approx(2.041e-3, rel=1e-4)  # of 1000 samples, of which the slowest fifth is at 2.04
    assert found.ratio == pytest.approx(1.1, rel=1e-4)
    assert (found.verdict, found.differences, report.passed) == ("slower", [], False)
    assert (report.a, report.b, report.threshold) == (str(a), str(b), 0.05)
    assert diff(a, b, threshold=0.2).passed
    assert diff(b, a).passed


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_row_that_was_disturbed_from_outside_tells_nothing(tmp_path: Path, side: str) -> None:
    slower = times(QUIET_MS, 1.4)
    neighbour = Conditions(steal_share=0.0, others_share=0.68)
    rows = {"A": row(), "B": row(slower)}
    disturbed = [msgspec.structs.replace(one, after=neighbour) for one in rows[side].replicates]
    rows[side] = msgspec.structs.replace(rows[side], replicates=disturbed, verdict="noisy")
    report = diff(*both(tmp_path, profile(rows["A"]), profile(rows["B"])))
    (found,) = report.rows
    assert (found.verdict, report.passed) == ("too noisy to tell", True)
    assert found.ratio == pytest.approx(1.4, rel=1e-4)
    assert (found.a_verdict, found.b_verdict) == (("noisy", "ok") if side == "A" else ("ok", "noisy"))
    assert found.reason is not None
    assert f"in {side} other processes used 68%" in found.reason


def test_offline_rows_are_compared_by_throughput(tmp_path: Path) -> None:
    """Calls that take as long as before, fewer of them at once, as another version of the engine may choose."""
    before, after = (
        measurement(
            scenario="offline",
            concurrency=callers,
            replicates=[replicate([2_000_000] * 300, throughput_per_s=rate + process) for process in range(5)],
        )
        for callers, rate in ((5, 1000.0), (4, 800.0))
    )
    (found,) = diff(*both(tmp_path, profile(before), profile(after))).rows
    assert found.a_p50_s == found.b_p50_s == pytest.approx(2e-3)
    assert found.verdict == "slower"
    assert found.ratio == pytest.approx(1001 / 801, rel=1e-2)


def test_p99_is_none_where_the_samples_are_too_few(tmp_path: Path) -> None:
    a, b = both(tmp_path, profile(row()), profile(row(QUIET_MS[:3])))
    (found,) = diff(a, b).rows
    assert found.a_p99_s is not None
    assert found.b_p99_s is None


def test_a_file_and_itself_are_the_same_however_noisy(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.json", row([2.0, 2.9, 4.0]), row([2.0], threads=2))
    assert [found.verdict for found in diff(path, path).rows] == ["same", "same"]


def test_rows_of_one_side_and_invalid_ones_are_listed(tmp_path: Path) -> None:
    invalid = row(mode="production", verdict="invalid", reasons=["the processes differ in inputs"])
    here = profile(row(), row(threads=2), row(threads=4), invalid)
    there = profile(row(), row(threads=2), row(batch=8), row(mode="production"))
    report = diff(*both(tmp_path, here, there))
    assert [found.threads for found in report.rows] == [1, 2]
    assert [(found.threads, found.batch) for found in (*report.only_a, *report.only_b)] == [(4, 1), (1, 8)]
    (ignored,) = report.not_compared
    assert (ignored.mode, ignored.reason) == ("production", "invalid in A: the processes differ in inputs")
    assert report.passed


def test_nothing_left_to_compare(tmp_path: Path) -> None:
    invalid = row(verdict="invalid", reasons=["11 samples"])
    with pytest.raises(InputError, match="nothing to compare: invalid in B: 11 samples"):
        diff(*both(tmp_path, profile(row()), profile(invalid)))
    with pytest.raises(InputError, match=r"a.json has tiny: ort:cpu parity, 1 thread, batch 1; .*b.json has no row"):
        diff(*both(tmp_path, profile(row()), profile()))
    many = [row(threads=threads) for threads in (1, 2, 3, 4, 5)]
    for count, words in ((4, "batch 1 and 1 more row; "), (5, "batch 1 and 2 more rows; ")):
        with pytest.raises(InputError, match=words):
            diff(*both(tmp_path, profile(*many[:count]), profile()))


UNLIKE: dict[str, tuple[LatencyProfile, Subject, str]] = {
    "machine": (
        profile(row(), hardware=msgspec.structs.replace(HARDWARE, cpu="Cortex-A76", instruction_sets=[])),
        "hardware",
        "cpu AMD EPYC in A, Cortex-A76 in B; instruction_sets avx2 in A, none in B",
    ),
    "memory": (
        profile(row(), hardware=msgspec.structs.replace(HARDWARE, memory_bytes=16 * 2**30)),
        "hardware",
        "memory_bytes 8589934592 in A, 17179869184 in B",
    ),
    "version": (
        profile(row(versions={"onnxruntime": "1.32.0"})),
        "runtime-version",
        "onnxruntime 1.31.1 in A, 1.32.0 in B",
    ),
    "model": (profile(row(), artifact_sha256="bb"), "artifact", "model.onnx of tiny aa in A, bb in B"),
    "network": (profile(row(), artifact="other"), "artifact", "artifact tiny in A, other in B"),
    "inputs": (profile(row(inputs_sha256="11")), "inputs", "inputs 00 in A, 11 in B"),
    "size": (profile(row(input_size=(96, 128))), "inputs", "input size none in A, 96x128 in B"),
    "precision": (profile(row(precision="bf16")), "precision", "precision f32 in A, bf16 in B"),
    "options": (profile(row(engine_options={"spin": "1"})), "options", "spin none in A, 1 in B"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_unlike_is_refused_unless_it_is_the_question(tmp_path: Path, what: str) -> None:
    other, subject, words = UNLIKE[what]
    a, b = both(tmp_path, profile(row()), other)
    with pytest.raises(InputError, match="cannot compare") as caught:
        diff(a, b)
    assert words in str(caught.value)
    assert f"--across {subject}" in str(caught.value)
    wrong: Subject = "inputs" if subject == "artifact" else "artifact"
    with pytest.raises(InputError, match="cannot compare"):
        diff(a, b, across=[wrong])
    (found,) = diff(a, b, across=[wrong, subject]).rows
    assert (found.verdict, found.differences) == ("same", [words])


def test_every_difference_is_named_at_once(tmp_path: Path) -> None:
    a, b = both(tmp_path, profile(row()), profile(row(inputs_sha256="11", precision="bf16"), artifact_sha256="bb"))
    with pytest.raises(InputError) as caught:
        diff(a, b)
    for words in ("aa in A, bb in B", "f32 in A, bf16 in B", "00 in A, 11 in B"):
        assert words in str(caught.value)
    with pytest.raises(InputError, match=r"inputs 00 in A, 11 in B\. If that is the question, say --across inputs$"):
        diff(a, b, across=["artifact", "precision"])


def test_what_makes_no_difference(tmp_path: Path) -> None:
    near = msgspec.structs.replace(HARDWARE, memory_bytes=round(1.05 * HARDWARE.memory_bytes))
    tools = {"python": "3.13.0", "numpy": "9.0", "mbexport": "9.9", "onnxruntime": "1.31.1"}
    later = row(versions=tools, measured_on="2031-01-01", verdict="noisy", reasons=["warm"])
    assert diff(*both(tmp_path, profile(row()), profile(later, hardware=near))).rows[0].verdict == "same"


def test_across_mode_holds_production_to_parity(tmp_path: Path) -> None:
    pinned = {"INFERENCE_PRECISION_HINT": "f32"}
    rows = [
        row(engine_options=pinned),
        row(times(QUIET_MS, 0.5), mode="production", precision="bf16"),
        row(threads=2, engine_options=pinned),
        row(times(QUIET_MS, 1.5), threads=2, mode="production", precision="bf16"),
    ]
    path = stored(tmp_path / "a.json", *rows)
    found = diff(path, path, across=["mode"]).rows
    assert [(each.mode, each.threads, each.verdict) for each in found] == [
        ("parity", 1, "faster"),
        ("parity", 2, "slower"),
    ]
    assert found[0].differences == [
        "mode parity in A, production in B",
        "precision f32 in A, bf16 in B",
        "INFERENCE_PRECISION_HINT f32 in A, none in B",
    ]


def test_across_threads_pairs_the_fewer_with_the_more(tmp_path: Path) -> None:
    one, two, four = (row(times(QUIET_MS, 1 / n), threads=n, engine_options={"n": str(n)}) for n in (1, 2, 4))
    a = stored(tmp_path / "a.json", one, two)
    assert diff(a, a, across=["threads"]).rows[0].ratio == pytest.approx(0.5, rel=1e-4)
    b = stored(tmp_path / "b.json", four)
    lone = stored(tmp_path / "lone.json", one)
    assert diff(lone, b, across=["threads"]).rows[0].ratio == pytest.approx(0.25, rel=1e-4)
    assert diff(b, lone, across=["threads"]).rows[0].ratio == pytest.approx(4, rel=1e-4)
    with pytest.raises(InputError, match=r"not clear which rows to compare across threads: A has .*2 threads.* B has"):
        diff(a, b, across=["threads"])


def test_across_runtime_compares_what_both_engines_have(tmp_path: Path) -> None:
    other = row(
        times(QUIET_MS, 0.8),
        runtime="openvino:cpu",
        versions={"openvino": "2026.4", "numpy": "2"},
        engine_options={"NUM_STREAMS": "1"},
    )
    path = stored(tmp_path / "a.json", row(engine_options={"intra_op_num_threads": "1"}), other)
    (found,) = diff(path, path, across=["runtime"]).rows
    assert (found.runtime, found.verdict) == ("openvino:cpu", "slower")
    assert found.differences == ["runtime openvino:cpu in A, ort:cpu in B"]
    a, b = both(tmp_path, profile(row(runtime="ort:cuda", versions={"onnxruntime": "1.30"})), profile(row()))
    with pytest.raises(InputError, match=r"onnxruntime 1\.30 in A, 1\.31\.1 in B"):
        diff(a, b, across=["runtime"])


def test_across_options_holds_other_options_to_the_usual_ones(tmp_path: Path) -> None:
    asked = {"NUM_STREAMS": "2"}
    other = row(times(QUIET_MS, 0.5), asked_options=asked, engine_options={"NUM_STREAMS": "2"})
    usual = row(engine_options={"NUM_STREAMS": "1"})
    a, b = both(tmp_path, profile(usual), profile(other))
    with pytest.raises(InputError, match="nothing to compare"):
        diff(a, b)
    (found,) = diff(a, b, across=["options"]).rows
    assert (found.unusual, found.verdict, found.differences) == ("", "faster", ["NUM_STREAMS 1 in A, 2 in B"])
    (back,) = diff(b, a, across=["options"]).rows
    assert (back.unusual, back.verdict) == ("NUM_STREAMS=2", "slower")
    whole = stored(tmp_path / "whole.json", usual, other)
    (within,) = diff(whole, whole, across=["options"]).rows
    assert (within.unusual, within.verdict) == ("", "faster")


def test_across_options_holds_another_model_file_to_the_usual_one(tmp_path: Path) -> None:
    a, b = both(tmp_path, profile(row()), profile(row(times(QUIET_MS, 0.5), model="model_folded.onnx")))
    (found,) = diff(a, b, across=["options"]).rows
    assert found.verdict == "faster"
    assert found.differences == ["model file the usual in A, model_folded.onnx in B"]


def test_unknown_subject() -> None:
    assert subject_of("runtime-version") == "runtime-version"
    with pytest.raises(InputError, match="unknown --across 'weather'; known: hardware, runtime"):
        subject_of("weather")


# Files and folders.


def machine(folder: Path, *profiles: LatencyProfile) -> Path:
    for one in profiles:
        write_profile(profile_path(folder, one.hardware, one.artifact), one)
    return folder


def test_folders_are_matched_by_artifact(tmp_path: Path) -> None:
    before = machine(
        tmp_path / "before",
        profile(row(), artifact="one"),
        profile(row(), artifact="two", artifact_sha256="22"),
        profile(row(), artifact="gone"),
    )
    after = machine(
        tmp_path / "after",
        profile(row(times(QUIET_MS, 1.1)), artifact="one"),
        profile(row(), artifact="two", artifact_sha256="22"),
        profile(row(), artifact="new"),
    )
    (after / HARDWARE.slug / "README.md").write_text("# table")
    report = diff(before, after / HARDWARE.slug)
    assert [(found.artifact, found.verdict) for found in report.rows] == [("one", "slower"), ("two", "same")]
    assert ([found.artifact for found in report.only_a], [found.artifact for found in report.only_b]) == (
        ["gone"],
        ["new"],
    )
    single = diff(before / HARDWARE.slug / "one.json", after)
    assert [found.artifact for found in single.rows] == ["one"]
    assert [found.artifact for found in single.only_b] == ["new", "two"]


def test_two_machines_are_refused(tmp_path: Path) -> None:
    other = msgspec.structs.replace(HARDWARE, cpu="Cortex-A76")
    mixed = machine(tmp_path / "mixed", profile(row()), profile(row(), hardware=other))
    with pytest.raises(InputError, match=r"mixed holds profiles of 2 machines, .*cortex-a76"):
        diff(mixed, mixed / HARDWARE.slug)
    write_profile(mixed / HARDWARE.slug / "stray.json", profile(row(), hardware=other))
    with pytest.raises(InputError, match="holds profiles of 2 machines"):
        diff(mixed / HARDWARE.slug, mixed / HARDWARE.slug)


def test_places_without_a_profile(tmp_path: Path) -> None:
    good = stored(tmp_path / "good" / "a.json", row())
    (tmp_path / "empty").mkdir()
    future = tmp_path / "future.json"
    future.write_text('{"schema_version": 99}')
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(good.read_bytes()[:-100])
    text = tmp_path / "text.json"
    text.write_text('{"name": "other"}')
    cases = {
        tmp_path / "missing.json": (InputError, "neither a profile nor a folder"),
        tmp_path / "empty": (InputError, "no profiles in"),
        future: (DocumentError, "schema version 99"),
        damaged: (DocumentError, "not valid JSON"),
        text: (DocumentError, "not written by mbexport"),
    }
    for path, (error, words) in cases.items():
        for sides in ((path, good), (good, path)):
            with pytest.raises(error, match=words):
                diff(*sides)


# All runtimes at once.


def test_all_runtimes_moving_together_are_remarked_on(tmp_path: Path) -> None:
    def at(ort: float, openvino: float) -> LatencyProfile:
        return profile(row(times(QUIET_MS, ort)), row(times(QUIET_MS, openvino), runtime="openvino:cpu"))

    (note,) = diff(*both(tmp_path, at(1, 1), at(1.12, 1.1))).notes
    assert "all runtimes moved together (ort:cpu +12%, openvino:cpu +10%)" in note
    assert diff(*both(tmp_path, at(1, 1), at(1.12, 1))).notes == []
    assert diff(*both(tmp_path, profile(row()), profile(row(times(QUIET_MS, 1.12))))).notes == []
    a, b = both(tmp_path, at(1, 1), msgspec.structs.replace(at(1.12, 1.1), artifact_sha256="bb"))
    assert diff(a, b, across=["artifact"]).notes == []


def test_float32_and_int8_are_compared_only_where_that_is_the_question(tmp_path: Path) -> None:
    float32 = profile(row())
    int8 = profile(row(times(QUIET_MS, 0.5), precision="int8"), artifact="tiny_int8", precision="int8")
    a, b = both(tmp_path, float32, int8)
    for across, missing in (((), "--across artifact --across precision"), (("artifact",), "--across precision")):
        with pytest.raises(InputError, match=f"cannot compare .* precision f32 in A, int8 in B.*say {missing}"):
            diff(a, b, across=[subject_of(word) for word in across])
    [found] = diff(a, b, across=["artifact", "precision"]).rows
    assert (found.precision, found.b_precision, found.verdict) == ("f32", "int8", "faster")
    folders = [tmp_path / name for name in ("before", "after")]
    for folder, factor in zip(folders, (1.0, 1.2), strict=True):
        for one, faster in ((float32, 1.0), (int8, 0.5)):
            rows = [row(times(QUIET_MS, factor * faster), precision=one.measurements[0].precision)]
            path = profile_path(folder, HARDWARE, one.artifact)
            write_profile(path, msgspec.structs.replace(one, measurements=rows))
    slower = {each.artifact: (each.precision, each.verdict) for each in diff(*folders).rows}
    assert slower == {"tiny": ("f32", "slower"), "tiny_int8": ("int8", "slower")}
