from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from mbexport import hardware, serde, thresholds
from mbexport.bench import Settings, bench, store
from mbexport.bench import run as bench_run
from mbexport.bench.journal import Journal
from mbexport.bench.plan import Cell, ColdPlan, WorkerPlan, choose_batch, choose_threads, interleave
from mbexport.bench.rows import row_of
from mbexport.bench.run import prepare
from mbexport.bench.table import table_text
from mbexport.bench.timing import Limits
from mbexport.errors import (
    ArtifactError,
    DocumentError,
    EngineError,
    InputError,
    MbexportError,
    MissingDeviceError,
    OutputError,
    ProcessError,
)
from mbexport.profile import ColdStart, ThreadPlan
from mbexport.profiles import read_profile, write_profile
from tests.measured import HARDWARE, answer, measurement, profile, replicate
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.bench.plan import WorkerAnswer

THREADS = ThreadPlan(threads=2, most=4, reasons=["2 physical cores", "a cgroup quota of 4 CPUs"])
FOLDER = "amd-epyc-f25m17-2c"
ALONE = Settings(threads=[1], modes=["parity"])
REPLICATES = thresholds.BENCH_REPLICATES
LIMITS = Limits(138, 0.6, 30.0)
"""As a bench without a budget plans for each process."""
STARTED = ColdStart(start_s=0.1, import_s=0.2, load_s=0.3, first_inference_s=0.4)


class Workers:
    """Stands for the measuring processes: every process of the same row answers a little slower than the one before."""

    def __init__(self) -> None:
        self.plans: list[WorkerPlan] = []
        self.precision = "f32"

    def __call__(self, plan: WorkerPlan) -> WorkerAnswer:
        self.plans.append(plan)
        before = sum(other == plan for other in self.plans) - 1
        return answer([2_000_000 + 10_000 * before] * 138, precision=self.precision)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(bench_run, "run_worker", made)
    monkeypatch.setattr(hardware, "detect", lambda: HARDWARE)
    monkeypatch.setattr(hardware, "usable_threads", lambda: THREADS)
    return made


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny_artifact(tmp_path / "artifacts")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_processes_of_the_rows_take_turns(workers: Workers, artifact: Artifact, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    bench(
        [artifact],
        ["ort:cpu", "openvino:cpu", "ORT:cpu"],
        profiles=tmp_path / "profiles",
        progress=lambda text, share: told.append((text, share)),
    )
    turn = [
        ("ort:cpu", "parity"),
        ("ort:cpu", "production"),
        ("openvino:cpu", "parity"),
        ("openvino:cpu", "production"),
    ]
    assert [(plan.cell.target, plan.cell.mode) for plan in workers.plans] == turn * REPLICATES
    assert {plan.cell.threads for plan in workers.plans} == {2}
    whole = 4 * REPLICATES
    assert [share for _, share in told] == pytest.approx([step / whole for step in range(whole + 1)])


def test_interleave_goes_round_the_rows() -> None:
    cells = [Cell(artifact="a", sha256="aa", target=target, mode="parity", threads=1, batch=1) for target in "AB"]
    assert [(row, cell.target) for row, cell in interleave(cells, 3)] == [(0, "A"), (1, "B")] * 3


def test_the_processes_together_have_the_samples_that_p99_needs(
    workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    bench([artifact], ["ort:cpu"], Settings(modes=["parity"]), profiles=tmp_path)
    assert sum(plan.min_samples for plan in workers.plans) >= thresholds.BENCH_MIN_SAMPLES
    assert len(workers.plans) >= 3


def test_profile_keeps_raw_samples_and_the_report_derives_its_rows_from_them(
    workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    report = bench([artifact], ["ort:cpu"], Settings(threads=[1]), profiles=tmp_path / "profiles")
    assert report.profile == str(tmp_path / "profiles" / FOLDER / "tiny.json")
    stored = read_profile(tmp_path / "profiles" / FOLDER / "tiny.json")
    assert stored.artifact_sha256 == artifact.sha256
    assert stored.spec == artifact.manifest.spec
    assert stored.precision == "f32"
    each = [2_000_000 + 10_000 * before for before in range(REPLICATES)]
    assert stored.measurements[0].samples_ns == [sample for sample in each for _ in range(138)]
    assert stored.measurements[0].thread_plan == THREADS
    assert [row.mode for row in report.rows] == ["parity", "production"]
    for row, measured in zip(report.rows, stored.measurements, strict=True):
        samples_s = np.concatenate([np.array(one.samples_ns) for one in measured.replicates]) * 1e-9
        assert row.samples == samples_s.size
        assert (row.p50_s, row.p90_s, row.p99_s) == pytest.approx(np.percentile(samples_s, [50, 90, 99]).tolist())
        assert row.min_s == pytest.approx(samples_s.min())
        assert row.mad_s == pytest.approx(np.median(abs(samples_s - np.median(samples_s))))
    assert files(tmp_path / "profiles") == [FOLDER, f"{FOLDER}/README.md", f"{FOLDER}/tiny.json"]


def test_profile_of_a_narrower_file_says_so(workers: Workers, artifact: Artifact, tmp_path: Path) -> None:
    """An f16 file that runs in f16 is what parity asks for; bf16 is not."""
    narrow = replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, precision="f16"))
    for effective, verdict in (("f16", "ok"), ("bf16", "invalid")):
        workers.precision = effective
        report = bench([narrow], ["ort:cpu"], Settings(modes=["parity"]), profiles=tmp_path / effective)
        assert read_profile(tmp_path / effective / FOLDER / "tiny.json").precision == "f16"
        assert [(row.precision, row.verdict) for row in report.rows] == [(effective, verdict)]


PROMISED = (
    *("runtime", "mode", "precision", "threads", "batch", "samples", "p50_s", "p90_s", "p99_s", "p50_ci_s", "load_s"),
    *("first_inference_s", "throughput_per_s", "memory_bytes", "verdict", "reasons"),
)


def test_report_is_json_with_the_promised_keys(workers: Workers, artifact: Artifact, tmp_path: Path) -> None:
    document = json.loads(serde.json_bytes(bench([artifact], ["ort:cpu"], profiles=tmp_path)))
    assert {"profile", "rows", "failed"} <= set(document)
    for row in document["rows"]:
        assert set(PROMISED) <= set(row)
        assert row["p50_s"] == pytest.approx(2.02e-3)
        assert row["p50_ci_s"][0] <= row["p50_s"] <= row["p50_ci_s"][1]
        assert row["samples"] == 690
        assert row["verdict"] == "ok"


def test_row_pools_samples_and_wall_clock() -> None:
    fast = replicate([1_000_000] * 400, throughput_per_s=900.0, load_s=1.0, memory_peak_bytes=7)
    slow = replicate([3_000_000] * 300, throughput_per_s=300.0, load_s=9.0, memory_peak_bytes=9)
    row = row_of("tiny", measurement(replicates=[fast, slow, fast], batch=1))
    assert row.samples == 1100
    assert row.p50_s == pytest.approx(1e-3)
    assert row.p90_s == pytest.approx(3e-3)
    assert row.min_s == pytest.approx(1e-3)
    assert row.mad_s == pytest.approx(0, abs=1e-12)
    assert row.between_share == pytest.approx(2.0)
    assert row.throughput_per_s == pytest.approx(1100 / (400 / 900 + 300 / 300 + 400 / 900))
    assert row.load_s == 1.0
    assert row.memory_peak_bytes == 9


def test_row_of_few_samples_has_a_median_and_no_tail() -> None:
    row = row_of("tiny", measurement(replicates=[replicate([5_000_000])]))
    assert row.p50_s == pytest.approx(5e-3)
    assert (row.p90_s, row.p99_s, row.between_share) == (None, None, None)


def test_second_bench_extends_the_profile(workers: Workers, artifact: Artifact, tmp_path: Path) -> None:
    bench([artifact], ["ort:cpu"], Settings(threads=[1]), profiles=tmp_path)
    report = bench([artifact], ["ort:cpu"], Settings(threads=[2]), profiles=tmp_path)
    assert report.replaced == []
    assert {row.threads for row in report.rows} == {2}
    stored = read_profile(tmp_path / FOLDER / "tiny.json")
    assert [row.threads for row in stored.measurements] == [1, 2, 1, 2]


def test_another_model_replaces_the_profile_and_it_is_said(
    workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / FOLDER / "tiny.json"
    write_profile(path, profile(measurement(threads=4)))
    report = bench([artifact], ["ort:cpu"], profiles=tmp_path)
    assert "aa..." in report.replaced[0]
    assert [row.threads for row in read_profile(path).measurements] == [2, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
@pytest.mark.usefixtures("workers")
def test_no_other_bench_gets_between_reading_and_writing_a_profile(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    folder = tmp_path / FOLDER
    seen: list[str] = []

    def free() -> bool:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def watch(name: str) -> None:
        real = getattr(store, name)

        def watched(*arguments: Any) -> Any:
            if not free():
                seen.append(name)
            return real(*arguments)

        monkeypatch.setattr(store, name, watched)

    bench([artifact], ["ort:cpu"], ALONE, profiles=tmp_path)
    for name in ("merge", "read_profile", "write_profile", "table_text"):
        watch(name)
    bench([artifact], ["ort:cpu"], ALONE, profiles=tmp_path)
    assert seen == ["read_profile", "merge", "write_profile", "table_text"]
    assert free()


@pytest.mark.parametrize("name", ["tiny.json", "neighbour.json"])
@pytest.mark.parametrize("content", ["{", '{"schema_version": 99}'])
def test_profile_that_cannot_be_read_stops_before_measuring(
    name: str, content: str, workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / "profiles" / FOLDER / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(DocumentError, match=name):
        bench([artifact], ["ort:cpu"], profiles=tmp_path / "profiles")
    assert workers.plans == []
    assert path.read_text() == content
    assert files(tmp_path / "profiles") == [FOLDER, f"{FOLDER}/{name}"]


def test_place_that_cannot_be_written_to_stops_before_measuring(
    workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "profiles").write_text("a file")
    with pytest.raises(OutputError, match="profiles"):
        bench([artifact], ["ort:cpu"], profiles=tmp_path / "profiles")
    assert workers.plans == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": Settings(threads=[0])}, "threads must be 1 to 4 here, not 0"),
        ({"settings": Settings(threads=[1, -1])}, "threads must be 1 to 4 here, not -1"),
        ({"settings": Settings(threads=[5])}, "not 5: there are 2 physical cores and a cgroup quota of 4 CPUs"),
        ({"settings": Settings(batches=[0])}, "batch must be at least 1, not 0"),
        ({"targets": []}, "at least one runtime"),
        ({"targets": ["ort:cpu", "onnx:cpu"]}, "unknown runtime 'onnx:cpu'"),
        ({"settings": Settings(modes=[])}, "one mode"),
        ({"settings": Settings(concurrency=0)}, "concurrency must be 1 to 256 here, not 0"),
        ({"settings": Settings(concurrency=2, offline=True)}, "drop --concurrency or --offline"),
        ({"settings": Settings(budget_s=2.0)}, "too small for 2 rows of 3 processes"),
    ],
)
def test_bad_input_stops_before_measuring(
    arguments: dict[str, Any], message: str, workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        bench([artifact], **{"targets": ["ort:cpu"], "profiles": tmp_path / "profiles", **arguments})
    assert workers.plans == []
    assert not (tmp_path / "profiles").exists()


def test_threads_default_to_the_plan_and_reach_to_its_limit() -> None:
    assert [choose_threads(wanted, THREADS) for wanted in (None, 1, 4)] == [2, 1, 4]


@pytest.mark.parametrize(
    ("wanted", "exported", "chosen"), [(None, None, 1), (None, 8, 8), (8, 8, 8), (3, None, 3), (1, None, 1)]
)
def test_batch_is_the_wanted_the_exported_or_one(wanted: int | None, exported: int | None, chosen: int) -> None:
    assert choose_batch(wanted, exported) == chosen


def test_another_batch_than_the_static_one_is_refused(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"built for batch 2, not 1; drop --batch, or build it with --batch dynamic"):
        bench([tiny_artifact(tmp_path, batch=2)], ["ort:cpu"], Settings(batches=[1]), profiles=tmp_path / "profiles")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MissingDeviceError, ArtifactError])
def test_a_bench_that_was_stopped_goes_on_where_it_stopped(
    error: type[BaseException], workers: Workers, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of its processes once: what was finished is never measured again, and nothing is lost."""
    whole = 2 * REPLICATES

    def stop(plan: WorkerPlan) -> WorkerAnswer:
        if len(stopped) < whole and len(workers.plans) == len(stopped):
            stopped.append(plan)
            raise error
        return workers(plan)

    stopped: list[WorkerPlan] = []
    monkeypatch.setattr(bench_run, "run_worker", stop)
    for _ in range(whole):
        with pytest.raises(error):
            bench([artifact], ["ort:cpu"], profiles=tmp_path / "profiles")
        assert len(workers.plans) == len(stopped) - 1
    report = bench([artifact], ["ort:cpu"], profiles=tmp_path / "profiles")
    assert [row.samples for row in report.rows] == [690, 690]
    assert len(workers.plans) == whole
    assert report.resumed == 1  # the last process to be stopped belonged to the other row
    assert files(tmp_path / "profiles") == [FOLDER, f"{FOLDER}/README.md", f"{FOLDER}/tiny.json"]
    bench([artifact], ["ort:cpu"], profiles=tmp_path / "profiles")
    assert len(workers.plans) == 2 * whole  # a finished bench is no rest of one


def test_what_the_budget_buys_is_known_before_measuring_and_reported(
    workers: Workers, artifact: Artifact, tmp_path: Path
) -> None:
    prepared = prepare([artifact], ["ort:cpu"], Settings(budget_s=30.0), profiles=tmp_path)
    assert workers.plans == []
    plan = prepared.plan
    assert plan is not None
    assert (plan.budget_s, plan.rows, plan.processes) == (30.0, 2, 2 * REPLICATES)
    assert prepared.run().budget == plan
    assert (workers.plans[0].min_time_s, workers.plans[0].max_time_s) == (plan.measuring_s, plan.measuring_s)
    assert bench([artifact], ["ort:cpu"], profiles=tmp_path).budget is None


def test_budget_of_a_bench_that_goes_on_is_said_of_what_is_left(
    workers: Workers, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before its last process: the other row is finished, and this one has measured four times."""
    plans, settings = workers.plans, Settings(budget_s=30.0, cold=True)
    monkeypatch.setattr(bench_run, "run_cold", lambda _plan: measurement().replicates[0])

    def stop(plan: WorkerPlan) -> WorkerAnswer:
        if len(plans) == 2 * REPLICATES - 1:
            raise KeyboardInterrupt
        return workers(plan)

    monkeypatch.setattr(bench_run, "run_worker", stop)
    with pytest.raises(KeyboardInterrupt):
        bench([artifact], ["ort:cpu"], settings, profiles=tmp_path)
    monkeypatch.setattr(bench_run, "run_worker", workers)
    plan = bench([artifact], ["ort:cpu"], settings, profiles=tmp_path).budget
    assert plan is not None
    assert (plan.rows, plan.processes_per_row, plan.processes) == (1, REPLICATES, 1)
    assert plan.measuring_s == pytest.approx((30 - 2 * 4) / 10 - 1)  # without the cold starts of both rows
    assert plans[-1].max_time_s == plan.measuring_s  # as long as the others, though more is left
    kept_s = 4 * 138 * 0.002
    assert plan.p99_up_to_s == pytest.approx((kept_s + plan.measuring_s) / 662, rel=0.01)


@pytest.mark.usefixtures("workers")
def test_rows_are_stored_as_they_are_finished(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Workers()

    def stop_at_last(plan: WorkerPlan) -> WorkerAnswer:
        if len(made.plans) == 2 * REPLICATES - 1:
            raise KeyboardInterrupt
        return made(plan)

    monkeypatch.setattr(bench_run, "run_worker", stop_at_last)
    with pytest.raises(KeyboardInterrupt):
        bench([artifact], ["ort:cpu"], profiles=tmp_path)
    stored = read_profile(tmp_path / FOLDER / "tiny.json")
    assert [row.mode for row in stored.measurements] == ["parity"]
    assert "tiny" in (tmp_path / FOLDER / "README.md").read_text()


def test_what_was_cut_off_or_is_a_day_old_is_measured_again(
    workers: Workers, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(artifact="a", sha256="aa", target="ort:cpu", mode="parity", threads=1, batch=1)
    journal = Journal(tmp_path)
    journal.add(cell, LIMITS, answer([1, 2]))
    path = next((tmp_path / ".unfinished").iterdir())
    with path.open("ab") as stream:
        stream.write(path.read_bytes()[:100])  # as a process that is killed while it writes leaves it
    journal.add(cell, LIMITS, answer([3, 4]))
    journal.add_starts(cell, [STARTED])
    assert [found.answer.replicate.samples_ns for found in journal.processes(cell, LIMITS)] == [[1, 2], [3, 4]]
    assert journal.starts(cell) == [STARTED]
    with monkeypatch.context() as patch:
        later_s = time.time() + 25 * 3600
        patch.setattr(time, "time", lambda: later_s)
        assert (journal.processes(cell, LIMITS), journal.starts(cell)) == ([], [])
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.0.0")
    assert (journal.processes(cell, LIMITS), journal.starts(cell)) == ([], [])


@pytest.mark.parametrize(
    ("samples", "each_ns", "wanted", "counts"),
    [
        (138, 5_000_000, LIMITS, True),  # 0.69 s, as a bench without a budget asks for at least
        (137, 5_000_000, LIMITS, False),  # too few for p99
        (200, 2_000_000, LIMITS, False),  # 0.4 s
        (10, 3_100_000_000, LIMITS, True),  # as slow as that, more could not be had
        (138, 5_000_000, Limits(1, 0.5, 0.5), True),  # a smaller budget
        (138, 5_000_000, Limits(1, 0.8, 0.8), False),
        (1, 5_000_000, Limits(1, 3.0, 3.0), True),  # planned the same: the same bench goes on, however it went
    ],
)
def test_a_process_counts_that_measured_no_less_than_is_asked_for(
    samples: int, each_ns: int, wanted: Limits, counts: bool, tmp_path: Path
) -> None:
    cell = Cell(artifact="a", sha256="aa", target="ort:cpu", mode="parity", threads=1, batch=1)
    journal = Journal(tmp_path)
    journal.add(cell, Limits(1, 3.0, 3.0), answer([each_ns] * samples))
    assert bool(journal.processes(cell, wanted)) is counts


def stop_after(workers: Workers, count: int) -> Callable[[WorkerPlan], WorkerAnswer]:
    def run(plan: WorkerPlan) -> WorkerAnswer:
        if len(workers.plans) == count:
            raise KeyboardInterrupt
        return workers(plan)

    return run


def test_processes_that_measured_for_less_stay_out_of_the_row(
    workers: Workers, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doubles measure for 0.28 s, where a bench without a budget asks for 0.6 s."""
    with monkeypatch.context() as patch:
        patch.setattr(bench_run, "run_worker", stop_after(workers, 3))
        with pytest.raises(KeyboardInterrupt):
            bench([artifact], ["ort:cpu"], Settings(modes=["parity"], budget_s=9.0), profiles=tmp_path)
    report = bench([artifact], ["ort:cpu"], Settings(modes=["parity"]), profiles=tmp_path)
    assert len(workers.plans) == 3 + REPLICATES
    assert (report.taken_over, [row.samples for row in report.rows]) == (None, [690])


@pytest.mark.parametrize("fresh", [False, True])
def test_processes_taken_over_are_told_and_fresh_takes_none(
    fresh: bool, workers: Workers, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with monkeypatch.context() as patch:
        patch.setattr(bench_run, "run_worker", stop_after(workers, 3))
        with pytest.raises(KeyboardInterrupt):
            bench([artifact], ["ort:cpu"], ALONE, profiles=tmp_path)
    prepared = prepare([artifact], ["ort:cpu"], ALONE, profiles=tmp_path, fresh=fresh)
    taken = prepared.taken_over
    assert prepared.run().taken_over == taken
    if fresh:
        assert (taken, len(workers.plans)) == (None, 3 + REPLICATES)
    else:
        assert taken is not None
        assert (taken.processes, len(workers.plans)) == (3, REPLICATES)
        assert before <= dt.datetime.fromisoformat(taken.measured_from) <= dt.datetime.now(dt.UTC)


def test_what_was_measured_is_kept_until_it_is_forgotten(workers: Workers, artifact: Artifact, tmp_path: Path) -> None:
    """What a command does after measuring may be stopped too."""
    prepare([artifact], ["ort:cpu"], profiles=tmp_path).run()
    again = prepare([artifact], ["ort:cpu"], profiles=tmp_path)
    assert again.run().resumed == 2
    assert len(workers.plans) == 2 * REPLICATES
    again.forget()
    assert prepare([artifact], ["ort:cpu"], profiles=tmp_path).taken_over is None
    assert files(tmp_path / FOLDER) == ["README.md", "tiny.json"]


def test_processes_that_were_starved_make_a_noisy_row(
    workers: Workers, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([1156, 1373, 537, 79, 61])
    monkeypatch.setattr(bench_run, "run_worker", lambda _plan: answer([2_000_000] * next(counts)))
    [row] = bench([artifact], ["ort:cpu"], ALONE, profiles=tmp_path).rows
    assert row.verdict == "noisy"
    assert row.reasons == ["3 of 5 processes measured for less than half as long as the longest (0.12 s against 2.7 s)"]


class Starts:
    """Stands for the processes that start with what the engine kept; those of ``broken`` modes fail."""

    def __init__(self, *broken: str, error: BaseException | None = None) -> None:
        self.plans: list[ColdPlan] = []
        self._broken, self._error = broken, error or ProcessError("was killed by SIGKILL")

    def __call__(self, plan: ColdPlan) -> ColdStart:
        self.plans.append(plan)
        if plan.cell.mode in self._broken:
            raise self._error
        return STARTED


@pytest.mark.parametrize("error", [EngineError("no cache"), ProcessError("no cache")])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_row_that_cannot_start_with_what_was_kept_is_stored_without(
    resumed: bool,
    error: MbexportError,
    workers: Workers,
    artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(cold=True, budget_s=60.0)
    if resumed:
        prepare([artifact], ["ort:cpu"], Settings(budget_s=52.0), profiles=tmp_path).run()  # the same without starts
    monkeypatch.setattr(bench_run, "run_cold", Starts("parity", error=error))
    report = bench([artifact], ["ort:cpu"], settings, profiles=tmp_path)
    assert (report.resumed, report.failed) == (2 if resumed else 0, [])
    assert [(row.mode, row.reason) for row in report.unprepared] == [("parity", "no cache")]
    assert [(row.samples, row.prepared is None) for row in report.rows] == [(690, True), (690, False)]
    stored = read_profile(tmp_path / FOLDER / "tiny.json")
    assert [len(row.prepared) for row in stored.measurements] == [0, 3]
    assert len(workers.plans) == 2 * REPLICATES


@pytest.mark.usefixtures("workers")
def test_cold_starts_of_a_finished_row_are_not_repeated(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, starts = Starts("production", error=KeyboardInterrupt()), Starts()
    monkeypatch.setattr(bench_run, "run_cold", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench([artifact], ["ort:cpu"], Settings(cold=True), profiles=tmp_path)
    monkeypatch.setattr(bench_run, "run_cold", starts)
    report = bench([artifact], ["ort:cpu"], Settings(cold=True), profiles=tmp_path)
    assert [plan.cell.mode for plan in stopped.plans] == ["parity"] * 4 + ["production"]
    assert [plan.cell.mode for plan in starts.plans] == ["production"] * 4
    assert [row.prepared for row in report.rows] == [STARTED] * 2


class Failing(Workers):
    """From its ``nth`` process on, a row whose target or mode is ``broken`` fails."""

    def __init__(self, broken: set[str], error: MbexportError, nth: int = 1) -> None:
        super().__init__()
        self._broken, self._error, self._nth = broken, error, nth

    def __call__(self, plan: WorkerPlan) -> WorkerAnswer:
        answered = super().__call__(plan)
        if {plan.cell.target, plan.cell.mode} & self._broken and self.plans.count(plan) >= self._nth:
            raise self._error
        return answered


BOTH = ["openvino:cpu", "ort:cpu"]


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("kind", [EngineError, ProcessError])
@pytest.mark.usefixtures("workers")
def test_rows_that_cannot_be_measured_are_told_and_the_others_kept(
    kind: type[MbexportError], nth: int, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing({"openvino:cpu"}, kind("no such layer"), nth)
    monkeypatch.setattr(bench_run, "run_worker", failing)
    report = bench([artifact], BOTH, profiles=tmp_path / "profiles")
    assert [(row.runtime, row.mode, row.reason) for row in report.failed] == [
        ("openvino:cpu", "parity", "no such layer"),
        ("openvino:cpu", "production", "no such layer"),
    ]
    assert [(row.runtime, row.samples) for row in report.rows] == [("ort:cpu", 690)] * 2
    stored = read_profile(tmp_path / "profiles" / FOLDER / "tiny.json")
    assert [row.runtime for row in stored.measurements] == ["ort:cpu"] * 2
    assert sum(plan.cell.target == "openvino:cpu" for plan in failing.plans) == 2 * nth  # once failed, not tried again


@pytest.mark.usefixtures("workers")
def test_one_mode_may_fail_alone(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_run, "run_worker", Failing({"production"}, EngineError("no")))
    report = bench([artifact], ["ort:cpu"], profiles=tmp_path)
    assert [row.mode for row in report.failed] == ["production"]
    assert [row.mode for row in report.rows] == ["parity"]


@pytest.mark.usefixtures("workers")
def test_nothing_is_written_where_every_row_fails(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "run_worker", Failing(set(BOTH), EngineError("no")))
    report = bench([artifact], BOTH, profiles=tmp_path / "profiles")
    assert (report.profile, report.rows, len(report.failed)) == (None, [], 4)
    assert not (tmp_path / "profiles").exists()


@pytest.mark.usefixtures("workers")
def test_processes_that_disagree_make_an_invalid_row(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions = iter(["f32", "bf16", "f32", "f32", "f32"])
    monkeypatch.setattr(bench_run, "run_worker", lambda _plan: answer([2_000_000] * 138, precision=next(precisions)))
    [row] = bench([artifact], ["ort:cpu"], Settings(modes=["production"]), profiles=tmp_path).rows
    assert row.verdict == "invalid"
    assert row.reasons == ["the processes differ in precision: f32; bf16; f32; f32; f32"]


def test_an_engine_that_cannot_run_the_model_is_a_failed_row(tmp_path: Path) -> None:
    """On a real engine and in a real process."""
    model = TinyNetwork().onnx_model()
    model.graph.node[2].op_type = "NoSuchOperator"
    artifact = tiny_artifact(tmp_path, model=model.SerializeToString())
    report = bench([artifact], ["ort:cpu"], ALONE, profiles=tmp_path / "profiles")
    [row] = report.failed
    assert "NoSuchOperator" in row.reason
    assert report.profile is None


def test_table_has_a_line_for_every_row_of_every_profile(tmp_path: Path) -> None:
    slow = [2_000_000] * 600 + [40_000_000] * 100
    folder = {
        tmp_path / "b.json": profile(measurement(replicates=[replicate(slow)], verdict="noisy"), artifact="b"),
        tmp_path / "a.json": profile(
            measurement(threads=2, measured_on="2026-03-04", versions={"openvino": "2026.4"}),
            measurement(replicates=[replicate([1_234_567] * 100)]),
            artifact="a",
        ),
    }
    lines = table_text(folder).splitlines()
    assert lines[0] == f"# {FOLDER}"
    assert "AMD EPYC, x86_64, 2 cores, 4 threads, 8 GiB" in lines[2]
    assert "2026-01-02 to 2026-03-04" in lines[2]
    assert "onnxruntime 1.31.1, openvino 2026.4" in lines[2]
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["network"], row["threads"]) for row in table] == [
        ("[a](a.json)", "1"),
        ("[a](a.json)", "2"),
        ("[b](b.json)", "1"),
    ]
    assert table[0]["p50 ms (95% interval)"] == "1.235 (1.235 to 1.235)"
    assert (table[0]["p90 ms"], table[0]["p99 ms"]) == ("1.235", "-")
    assert (table[2]["p90 ms"], table[2]["p99 ms"], table[2]["verdict"]) == ("40.0", "40.0", "noisy")
    assert (table[2]["load ms"], table[2]["first inference ms"]) == ("200.0", "300.0")


def test_readme_is_made_from_all_profiles_of_the_folder(workers: Workers, artifact: Artifact, tmp_path: Path) -> None:
    neighbour = msgspec.structs.replace(profile(measurement()), artifact="neighbour")
    write_profile(tmp_path / FOLDER / "neighbour.json", neighbour)
    bench([artifact], ["ort:cpu"], profiles=tmp_path)
    text = (tmp_path / FOLDER / "README.md").read_text()
    assert text.count("[neighbour](neighbour.json)") == 1
    assert text.count("[tiny](tiny.json)") == 2


def test_whole_road_on_a_real_engine(tmp_path: Path) -> None:
    report = bench([tiny_artifact(tmp_path)], ["ort:cpu"], ALONE, profiles=tmp_path / "profiles")
    (row,) = report.rows
    assert row.p99_s is not None
    assert 0 < row.min_s <= row.p50_ci_s[0] <= row.p50_s <= row.p50_ci_s[1] <= row.p99_s
    assert (row.precision, row.threads, row.batch) == ("f32", 1, 1)
    assert row.verdict in {"ok", "noisy"}
