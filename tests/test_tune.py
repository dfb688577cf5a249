from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from mbexport.errors import EngineError, InputError, ProcessError
from mbexport.profiles import merge, read_profile, write_profile
from mbexport.tune import halving
from mbexport.tune.run import TuneSettings, tune
from mbexport.tune.timing import p50_interval_s, ratio_of
from tests.colours import colour_artifact, int8_beside
from tests.measured import answer, measurement, profile, replicate
from tests.tuning import FOLDER, is_int8, on_machine, photographs

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.bench.plan import Cell, WorkerAnswer, WorkerPlan
    from mbexport.tune.run import TuneReport
    from mbexport.tuned import Objective

TARGETS = ["ort:cpu", "openvino:cpu"]


def as_features(out: Path) -> Artifact:
    """Judged by numbers, and every file computes the same."""
    return colour_artifact(out, weights="random")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return as_features(tmp_path / "artifacts")


def run(artifact: Artifact, tmp_path: Path, **changes: Any) -> TuneReport:
    return tune(artifact, TARGETS, TuneSettings(**changes), profiles=tmp_path / "profiles")


def faster_int8(cell: Cell, _before: int) -> float:
    """On OpenVINO with two threads int8 takes 1 ms; float32 takes 2 ms at best."""
    if is_int8(cell):
        return 1e-3 if (cell.target, cell.threads) == ("openvino:cpu", 2) else 3e-3
    return 2e-3 if (cell.target, cell.threads) == ("ort:cpu", 1) else 4e-3


def test_the_fastest_inside_the_limit_is_chosen_and_stored(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = int8_beside(artifact)
    on_machine(monkeypatch, faster_int8)
    stored = tmp_path / "profiles" / FOLDER / "colours.json"
    write_profile(stored, profile(measurement(), artifact="colours", artifact_sha256=artifact.sha256, spec=None))
    report = run(artifact, tmp_path)
    found = report.tuned
    wanted = found.configuration
    assert (wanted.artifact, wanted.sha256) == ("colours_int8", sibling.sha256)
    assert (wanted.runtime, wanted.threads, wanted.callers, wanted.options) == ("openvino:cpu", 2, 1, {})
    assert wanted.model_sha256 == sibling.manifest.files[wanted.model]
    assert (found.go, found.precision, found.engine_options) == (True, "int8", {"threads": "2"})
    assert found.over_float32.value == pytest.approx(2)
    assert found.over_defaults is not None
    assert found.over_defaults.value == pytest.approx(4)
    assert report.profile == str(stored)
    assert report.path == str(sibling.path)
    kept = read_profile(stored)
    assert kept.tuned == [found]
    assert kept.measurements == [measurement()]


def test_evidence_has_every_candidate_with_its_rung_and_what_became_of_it(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)
    machine = on_machine(monkeypatch, faster_int8)
    trials = run(artifact, tmp_path).tuned.trials
    assert trials[0].outcome == "chosen"
    assert [trial.rung for trial in trials] == [3, *sorted((trial.rung for trial in trials[1:]), reverse=True)]
    assert {trial.rung for trial in trials} == {1, 2, 3}
    hopeless = [trial for trial in trials if trial.rung == 1]
    assert all(trial.processes == 2 and " x the time of the fastest in rung 1" in trial.outcome for trial in hopeless)
    assert all(trial.accuracy is not None and trial.accuracy.inside for trial in trials)
    timed = {
        (cell.artifact, cell.model, cell.target, cell.mode, cell.threads, cell.options) for cell in machine.cells()
    }
    assert len(trials) == len(timed)
    last = [trial for trial in trials if trial.rung == 3]
    assert all(trial.p50_ci_s is not None and trial.p50_s is not None for trial in last)
    assert {trial.processes for trial in last} == {halving.MOST_ROUNDS}


def test_processes_of_a_rung_take_turns(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = on_machine(monkeypatch, faster_int8)
    trials = run(artifact, tmp_path).tuned.trials
    finalists = sum(trial.rung == 3 for trial in trials)
    last = machine.cells()[-halving.MOST_ROUNDS * finalists :]
    assert last == last[:finalists] * halving.MOST_ROUNDS
    assert len(set(last)) == finalists > 1


def test_another_form_of_the_graph_is_tried_on_each_engine(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the float32 artifact ONNX Runtime's file is the faster one on OpenVINO here."""
    on_machine(
        monkeypatch, lambda cell, _: 1e-3 if (cell.target, cell.model) == ("openvino:cpu", "model.onnx") else 2e-3
    )
    found = run(artifact, tmp_path).tuned
    assert (found.configuration.runtime, found.configuration.model) == ("openvino:cpu", "model.onnx")
    assert not found.go
    assert found.over_defaults is not None
    assert found.over_defaults.value == pytest.approx(2)


def test_nothing_is_given_up_for_a_gain_inside_the_noise(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)

    def noisy(cell: Cell, before: int) -> float:
        """int8 is 2% faster in the median, and 10% faster or slower from process to process."""
        return 2e-3 * (0.98 + (0.1 if before % 2 else -0.1)) if is_int8(cell) else 2e-3

    on_machine(monkeypatch, noisy)
    found = run(artifact, tmp_path).tuned
    assert not found.go
    assert found.precision == "f32"


@pytest.mark.parametrize(("gain", "options"), [(0.1, {"ENABLE_CPU_PINNING": "NO"}), (0.0, {})])
def test_options_are_taken_where_they_help(
    gain: float, options: dict[str, str], artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latency_s(cell: Cell, _before: int) -> float:
        if cell.target != "openvino:cpu":
            return 5e-3
        return 2e-3 * (1 - gain if cell.options == (("ENABLE_CPU_PINNING", "NO"),) else 1)

    on_machine(monkeypatch, latency_s)
    assert run(artifact, tmp_path).tuned.configuration.options == options


def test_p99_is_not_p50(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread takes 2 ms always; two threads take 1 ms, but 9 ms in one call of twenty."""

    def worker(plan: WorkerPlan) -> WorkerAnswer:
        samples = [2_000_000] * 200 if plan.cell.threads == 1 else [1_000_000] * 190 + [9_000_000] * 10
        return answer(samples)

    on_machine(monkeypatch, lambda _cell, _before: 1e-3)
    monkeypatch.setattr(halving, "run_worker", worker)
    assert run(artifact, tmp_path, objective="p50").tuned.configuration.threads == 2
    found = run(artifact, tmp_path, objective="p99").tuned
    assert found.configuration.threads == 1
    assert found.over_defaults is not None
    assert found.over_defaults.value == pytest.approx(4.5)
    both = read_profile(tmp_path / "profiles" / FOLDER / "colours.json").tuned
    assert [(each.objective, each.configuration.threads) for each in both] == [("p50", 2), ("p99", 1)]


def test_throughput_tries_callers(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call takes 1 ms alone, 1.2 ms beside another, and 8 ms among four."""
    on_machine(monkeypatch, lambda cell, _: {1: 1e-3, 2: 1.2e-3, 4: 8e-3}[cell.concurrency])
    found = run(artifact, tmp_path, objective="throughput").tuned
    assert found.configuration.callers == 2
    assert found.over_defaults is not None
    assert found.over_defaults.value == pytest.approx(2 / 1.2)
    assert found.trials[0].throughput_per_s == pytest.approx(2 / 1.2e-3)


def test_one_thread_count_where_it_is_asked_for(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = on_machine(monkeypatch, faster_int8)
    run(artifact, tmp_path, threads=1)
    assert {cell.threads for cell in machine.cells()} == {1}
    with pytest.raises(InputError, match="threads must be 1 to 2 here, not 3"):
        run(artifact, tmp_path, threads=3)


def test_a_candidate_that_dies_is_out_and_the_others_go_on(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(cell: Cell, before: int) -> float:
        if (cell.target, cell.model, cell.mode, cell.threads, before) == ("openvino:cpu", None, "parity", 2, 1):
            raise ProcessError("the process was killed by SIGSEGV")
        return {1: 1.1e-3, 2: 1e-3}[cell.threads] if cell.target == "openvino:cpu" else 2e-3

    on_machine(monkeypatch, dying)
    trials = run(artifact, tmp_path).tuned.trials
    dead = [trial for trial in trials if "SIGSEGV" in trial.outcome]
    assert dead
    assert all((trial.configuration.runtime, trial.configuration.threads) == ("openvino:cpu", 2) for trial in dead)
    assert trials[0].configuration.runtime == "openvino:cpu"
    assert trials[0] not in dead


def test_nothing_runs(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(_cell: Cell, _before: int) -> float:
        raise ProcessError("the process was killed by SIGKILL")

    on_machine(monkeypatch, dead)
    with pytest.raises(EngineError, match=r"nothing in float32 could be timed.*SIGKILL"):
        run(artifact, tmp_path)
    assert not list((tmp_path / "profiles").rglob("*"))


def test_interrupted_it_leaves_nothing(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_cell: Cell, before: int) -> float:
        if before == 4:
            raise KeyboardInterrupt
        return 1e-3

    on_machine(monkeypatch, stopped)
    with pytest.raises(KeyboardInterrupt):
        run(artifact, tmp_path)
    assert not list((tmp_path / "profiles").rglob("*"))


class Clock:
    """Time passes only in processes."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.mark.parametrize("process_s", [0.7, 2.0])
def test_the_budget_is_kept(
    process_s: float, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)
    clock = Clock()

    def slow(cell: Cell, before: int) -> float:
        clock.now_s += process_s
        return faster_int8(cell, before)

    on_machine(monkeypatch, slow)
    monkeypatch.setattr(halving, "time", SimpleNamespace(monotonic=clock.monotonic))
    found = run(artifact, tmp_path, budget_s=100.0).tuned
    assert (60 if process_s < 1 else 75) <= clock.now_s <= 100
    last = {trial.processes for trial in found.trials if trial.rung == 3}
    assert len(last) == 1
    assert [trial for trial in found.trials if trial.outcome.startswith("not timed")] == []
    assert found.go
    assert min(last) >= 3


def test_a_budget_that_ends_before_a_decision_stores_nothing(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found earlier stays."""
    int8_beside(artifact)
    clock = Clock()

    def slow(cell: Cell, before: int) -> float:
        clock.now_s += 5.0
        return faster_int8(cell, before)

    on_machine(monkeypatch, faster_int8)
    earlier = run(artifact, tmp_path).tuned
    on_machine(monkeypatch, slow)
    monkeypatch.setattr(halving, "time", SimpleNamespace(monotonic=clock.monotonic))
    with pytest.raises(InputError, match=r"spent after \d of the 3 rounds that a decision needs; .*--budget"):
        run(artifact, tmp_path, budget_s=100.0)
    assert read_profile(tmp_path / "profiles" / FOLDER / "colours.json").tuned == [earlier]


def test_a_budget_that_ends_before_float32_was_timed_names_it(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def one_takes_all(cell: Cell, _before: int) -> float:
        clock.now_s += 70.0
        raise ProcessError("the process was killed by SIGSEGV")

    on_machine(monkeypatch, one_takes_all)
    monkeypatch.setattr(halving, "time", SimpleNamespace(monotonic=clock.monotonic))
    with pytest.raises(InputError, match="spent before float32 was timed; give a larger --budget"):
        run(artifact, tmp_path, budget_s=100.0)
    assert not list((tmp_path / "profiles").rglob("*"))


def test_one_disturbed_process_of_the_first_rung_drops_nobody(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)
    on_machine(
        monkeypatch, lambda cell, before: faster_int8(cell, before) * (10 if is_int8(cell) and not before else 1)
    )
    assert run(artifact, tmp_path).tuned.configuration.artifact == "colours_int8"


def test_one_slow_candidate_takes_no_other_ones_time(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)
    clock = Clock()

    def is_it(target: str, threads: int) -> bool:
        return (target, threads) == ("ort:cpu", 2)

    def slow(cell: Cell, before: int) -> float:
        clock.now_s += 30.0 if is_it(cell.target, cell.threads) and is_int8(cell) else 0.2
        return faster_int8(cell, before)

    on_machine(monkeypatch, slow)
    monkeypatch.setattr(halving, "time", SimpleNamespace(monotonic=clock.monotonic))
    trials = run(artifact, tmp_path, budget_s=100.0).tuned.trials
    late = [trial.configuration for trial in trials if trial.outcome == halving.LATE]
    assert [each for each in late if not is_it(each.runtime, each.threads)] == []
    assert trials[0].precision == "int8"


def test_too_small_a_budget_says_what_is_needed(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = on_machine(monkeypatch, faster_int8)
    with pytest.raises(InputError, match=r"budget of 5 s is too small for 8 variants; give at least \d\ds"):
        run(artifact, tmp_path, budget_s=5.0)
    assert machine.plans == []


def test_siblings_of_another_model_are_left_out_and_it_is_said(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = int8_beside(artifact)
    assert sibling.manifest.derivation is not None
    other = msgspec.structs.replace(sibling.manifest.derivation, source_sha256="f" * 64)
    int8_beside(artifact, derivation=other)
    machine = on_machine(monkeypatch, faster_int8)
    report = run(artifact, tmp_path)
    assert not any(is_int8(cell) for cell in machine.cells())
    assert any("colours_int8 is left out: it was made of another model.onnx" in note for note in report.notes)


def test_a_damaged_sibling_is_left_out_and_it_is_said(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (int8_beside(artifact).path / "model.onnx").write_bytes(b"cut off")
    on_machine(monkeypatch, faster_int8)
    assert any(
        "left out: " in note and "is not the file that was built" in note for note in run(artifact, tmp_path).notes
    )


def test_a_narrower_artifact_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is int8; give the float32 artifact"):
        run(int8_beside(artifact), tmp_path)


def rounds(*processes: tuple[list[int], float]) -> list[WorkerAnswer]:
    return [answer([1], replicate=replicate(samples, throughput_per_s=rate)) for samples, rate in processes]


def test_ratio_pairs_the_rounds() -> None:
    """The machine drifts from 1 ms to 4 ms while both are measured; one is three times faster all along."""
    times = (1, 2, 3, 4)
    slow = rounds(*(([3_000_000 * time] * 100, 1 / (3e-3 * time)) for time in times))
    fast = rounds(*(([1_000_000 * time] * 100, 1 / (1e-3 * time)) for time in times))
    for objective in ("p50", "p99", "throughput"):
        found = ratio_of(slow, fast, objective)
        assert found.value == pytest.approx(3)
        assert found.ci == pytest.approx((3, 3))


@pytest.mark.parametrize("objective", ["p50", "throughput"])
@pytest.mark.parametrize("count", [3, 5, 9])
def test_ratio_of_equal_configurations_holds_one_as_often_as_it_says(count: int, objective: Objective) -> None:
    """10% noise from process to process, and a machine that drifts by more."""
    rng = np.random.default_rng(count)
    held, tries = 0, 1500
    for _ in range(tries):
        drift = rng.normal(0, 0.3, count)
        one, other = (
            rounds(*(([round(time_ns)] * 3, 1e9 / time_ns) for time_ns in 1e6 * np.exp(drift + noise)))
            for noise in rng.normal(0, 0.1, (2, count))
        )
        low, high = ratio_of(one, other, objective).ci
        held += low <= 1 <= high
    assert 0.93 <= held / tries <= 0.97


@pytest.mark.parametrize("count", [3, 9])
def test_ratio_of_equal_tails_holds_one_nearly_as_often(count: int) -> None:
    """Calls with a heavy tail; the jackknife holds the truth with 93 to 94% where it says 95%."""
    rng = np.random.default_rng(count)
    held, tries = 0, 400
    for _ in range(tries):
        calls_ns = 1e6 * np.exp(rng.normal(0, 0.1, (2, count, 1)) + rng.normal(0, 0.03, (2, count, 138)))
        calls_ns *= 1 + (rng.random(calls_ns.shape) < 0.03) * rng.exponential(1, calls_ns.shape)
        one, other = (rounds(*((process.astype(int).tolist(), 1.0) for process in side)) for side in calls_ns)
        low, high = ratio_of(one, other, "p99").ci
        held += low <= 1 <= high
    assert 0.9 <= held / tries <= 0.97


def test_no_interval_of_too_few_rounds() -> None:
    two = rounds(([100], 1.0), ([110], 1.0))
    with pytest.raises(ValueError, match="needs 3 rounds, not 2"):
        ratio_of(two, two, "p50")
    assert p50_interval_s(two) is None


def test_an_interval_of_the_median_is_students() -> None:
    """Of the logarithms -1, 0 and 1: 0 and 4.303 (t for 2 degrees of freedom, any table) over the root of 3."""
    three = rounds(*(([round(1e9 * np.exp(power))] * 3, 1.0) for power in (-1, 0, 1)))
    assert p50_interval_s(three) == pytest.approx((np.exp(-4.3027 / 3**0.5), np.exp(4.3027 / 3**0.5)), rel=1e-4)


def test_an_int8_file_that_the_engine_widens_is_no_go(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)
    machine = on_machine(monkeypatch, faster_int8)
    machine.precision = lambda _cell: "f32"
    found = run(artifact, tmp_path).tuned
    assert (found.go, found.configuration.artifact) == (False, "colours")
    widened = [trial for trial in found.trials if trial.configuration.artifact == "colours_int8" and trial.rung == 3]
    assert widened
    assert all("the engine computes it in float32" in trial.outcome for trial in widened)


def test_a_gain_over_the_defaults_is_of_the_same_runtime_or_none(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8_beside(artifact)

    def no_default(cell: Cell, before: int) -> float:
        if (cell.target, cell.model, cell.mode, is_int8(cell)) == ("openvino:cpu", None, "parity", False):
            raise ProcessError("the process was killed by SIGSEGV")
        return faster_int8(cell, before)

    on_machine(monkeypatch, no_default)
    found = run(artifact, tmp_path).tuned
    assert found.configuration.runtime == "openvino:cpu"
    assert found.over_defaults is None


def test_trained_weights_without_pictures_leave_int8_out_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = colour_artifact(tmp_path / "artifacts", weights="keras-file")
    int8_beside(trained)
    machine = on_machine(monkeypatch, faster_int8)
    report = run(trained, tmp_path)
    assert not any(is_int8(cell) for cell in machine.cells())
    assert any("left out: colours_int8, for which --images DIR is needed" in note for note in report.notes)
    photos = photographs(tmp_path / "photos", 4)
    seen = tune(trained, TARGETS, TuneSettings(), images=photos, profiles=tmp_path / "profiles")
    assert seen.tuned.go


def test_a_limit_of_top1_that_is_not_applied_is_told(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, faster_int8)
    told = "--max-drop was not applied: it is of top-1, and SQNR judged"
    assert told in run(artifact, tmp_path, max_drop=0.01).notes
    assert told not in run(artifact, tmp_path).notes


def test_a_missing_int8_artifact_is_told_once(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, faster_int8)
    notes = [note for note in run(artifact, tmp_path).notes if "mbexport quantize" in note]
    assert notes == [f"no colours_int8 beside it: mbexport quantize {artifact.path} --images DIR makes one"]
    int8_beside(artifact)
    assert not any("mbexport quantize" in note for note in run(artifact, tmp_path).notes)


def tuned_profile(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    on_machine(monkeypatch, faster_int8)
    return read_profile(tmp_path / "profiles" / FOLDER / "colours.json") if run(artifact, tmp_path) else None


def test_later_rows_keep_what_was_tuned_and_a_later_tune_replaces_it(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tuned_profile(artifact, tmp_path, monkeypatch)
    (found,) = stored.tuned
    benched = msgspec.structs.replace(stored, tuned=[], measurements=[measurement()])
    assert merge(stored, benched)[0].tuned == [found]
    older = msgspec.structs.replace(found, tuned_on="2001-01-01", go=not found.go)
    newer = msgspec.structs.replace(found, tuned_on="2999-01-01", go=not found.go)
    for other, kept in ((older, found), (newer, newer)):
        merged, _ = merge(stored, msgspec.structs.replace(stored, tuned=[other]))
        assert merged.tuned == [kept]


def test_rows_with_other_options_or_another_file_do_not_replace_the_usual_ones() -> None:
    usual = measurement()
    unpinned = measurement(asked_options={"ENABLE_CPU_PINNING": "NO"})
    other = measurement(model="model_openvino.onnx")
    merged, _ = merge(profile(usual), profile(unpinned, other))
    assert len(merged.measurements) == 3
    assert [row.unusual for row in merged.measurements] == ["", "ENABLE_CPU_PINNING=NO", "model_openvino.onnx"]
