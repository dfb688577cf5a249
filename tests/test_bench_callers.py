"""Several callers at once: the loop, and what each engine makes of it."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mbexport.bench.plan import Cell, ColdPlan, WorkerPlan
from mbexport.bench.process import run_cold, run_worker
from mbexport.bench.timing import SECOND_NS, Limits, time_callers
from mbexport.runtimes import SessionOptions, load_engine
from tests.tiny import tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.profile import Scenario

ENGINES = ["ort:cpu", "openvino:cpu"]


def test_callers_run_at_once_and_all_their_samples_count() -> None:
    """Each call waits for the other caller's: alone, none would ever end."""
    together = threading.Barrier(2, timeout=30)
    samples, wall_ns = time_callers([itertools.repeat(together.wait)] * 2, Limits(min_samples=7, min_time_s=0))
    assert len(samples) >= 7
    assert max(samples) <= wall_ns


def test_callers_share_the_limits() -> None:
    calls = [itertools.repeat(lambda: time.sleep(0.001))] * 4
    samples, wall_ns = time_callers(calls, Limits(min_samples=40, min_time_s=0))
    assert 40 <= len(samples) <= 40 + 4  # each ends the call that it is in
    assert wall_ns < sum(samples)  # 4 at a time


def test_time_is_up_for_all_callers() -> None:
    calls = [itertools.repeat(lambda: time.sleep(0.01))] * 2
    samples, wall_ns = time_callers(calls, Limits(min_samples=10**9, min_time_s=0, max_time_s=0.05))
    assert len(samples) >= 2
    assert wall_ns >= 0.05 * SECOND_NS


def test_what_a_caller_raises_is_raised() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time_callers([itertools.repeat(fail)] * 2, Limits(min_samples=1))


def cell(folder: Path, target: str, scenario: Scenario, concurrency: int, threads: int = 2) -> Cell:
    return Cell(
        artifact=str(tiny_artifact(folder).path),
        sha256="aa",
        target=target,
        mode="parity",
        threads=threads,
        batch=1,
        scenario=scenario,
        concurrency=concurrency,
    )


@pytest.mark.parametrize("target", ENGINES)
@pytest.mark.parametrize(("scenario", "asked"), [("concurrent", 3), ("offline", 1)])
def test_a_real_engine_serves_several_callers(scenario: Scenario, asked: int, target: str, tmp_path: Path) -> None:
    plan = WorkerPlan(cell=cell(tmp_path, target, scenario, asked), min_samples=30, min_time_s=0.05, max_time_s=20)
    found = run_worker(plan)
    samples_ns = found.replicate.samples_ns
    assert len(samples_ns) >= 30
    assert found.concurrency == (3 if scenario == "concurrent" else 2)  # of two threads each takes one
    assert found.replicate.throughput_per_s > 0
    if target == "ort:cpu":
        assert found.engine_options["intra_op_num_threads"] == "1"
    else:
        assert found.engine_options["NUM_STREAMS"] == "2"


@pytest.mark.parametrize(("threads", "callers", "each"), [(8, 1, 8), (8, 3, 2), (8, 16, 1), (8, None, 1)])
def test_callers_of_onnx_runtime_share_the_threads(
    threads: int, callers: int | None, each: int, tmp_path: Path
) -> None:
    artifact = tiny_artifact(tmp_path)
    options = SessionOptions(threads=threads, callers=callers)
    with load_engine("ort").open(artifact.model_path("ort:cpu"), "cpu", options) as session:
        assert session.facts().options["intra_op_num_threads"] == str(each)
        assert session.callers == (callers or threads)


@pytest.mark.parametrize("target", ENGINES)
def test_a_second_start_finds_what_the_engine_kept(target: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    plan = ColdPlan(cell=cell(tmp_path, target, "single-stream", 1), kept=str(kept))
    first = run_cold(plan)
    written = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert written
    second = run_cold(plan)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    for start in (first, second):
        assert start.start_s is not None
        assert min(start.start_s, start.import_s, start.load_s, start.first_inference_s) > 0


@pytest.mark.parametrize("target", ENGINES)
def test_a_kept_model_answers_as_the_file_does(target: str, tmp_path: Path) -> None:
    from mbexport.artifact import read_reference

    artifact = tiny_artifact(tmp_path)
    feeds = {name: array[:1] for name, array in read_reference(artifact).inputs.items()}
    engine, device = target.split(":")
    answers = []
    for kept in (None, tmp_path, tmp_path):
        options = SessionOptions(threads=1, kept=kept)
        with load_engine(engine).open(artifact.model_path(target), device, options) as session:
            answers.append(next(iter(session.run(feeds).values())))
    assert (answers[1] == answers[0]).all()
    assert (answers[2] == answers[0]).all()
