"""Several callers at once: the loop, and what each engine makes of it."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mbexport import thresholds
from mbexport.bench.drift import drift_share
from mbexport.bench.plan import Cell, ColdPlan, WorkerPlan
from mbexport.bench.process import run_cold, run_worker
from mbexport.bench.timing import SECOND_NS, Limits, time_callers, warm_up_callers
from mbexport.runtimes import SessionOptions, load_engine
from tests.tiny import tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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


class OwnClocks:
    """Every thread has its own time, which passes in its calls alone."""

    def __init__(self) -> None:
        self.runs = 0
        self._lock = threading.Lock()
        self._own = threading.local()

    def __call__(self) -> int:
        return getattr(self._own, "now_ns", 10**15)

    def calls(self, durations_ns: Iterable[int]) -> Iterator[Callable[[], object]]:
        for duration_ns in durations_ns:
            yield functools.partial(self._pass, duration_ns)

    def _pass(self, duration_ns: int) -> None:
        with self._lock:
            self.runs += 1
        self._own.now_ns = self() + duration_ns


def test_samples_are_in_the_order_in_which_they_ended() -> None:
    clock = OwnClocks()
    seconds = [[3, 3, 3, 3], [2, 2, 4, 5]]  # end at 3, 6, 9, 12 and at 2, 4, 8, 13
    callers = [clock.calls(second * SECOND_NS for second in own) for own in seconds]
    samples, wall_ns = time_callers(callers, Limits(min_samples=1, min_time_s=12), clock)
    assert [sample // SECOND_NS for sample in samples] == [2, 3, 2, 3, 4, 3, 3, 5]
    assert wall_ns == 13 * SECOND_NS


def test_callers_that_all_become_slower_drift() -> None:
    clock = OwnClocks()
    slower = [1_000_000] * 60 + [1_500_000] * 100
    samples, _ = time_callers(
        [clock.calls(itertools.chain(slower, itertools.repeat(1_500_000))) for _ in range(4)],
        Limits(min_samples=1, min_time_s=sum(slower) / SECOND_NS),
        clock,
    )
    assert len(samples) == 4 * len(slower)
    assert drift_share(samples) == pytest.approx(0.5 / 1.5)


def test_warm_up_has_all_callers_at_once() -> None:
    """The first call of each waits until all are under way: alone, none would ever end."""
    arrived: set[int] = set()
    together = threading.Event()

    def meet() -> None:
        arrived.add(threading.get_ident())
        if len(arrived) == 3:
            together.set()
        assert together.wait(20)

    clock = OwnClocks()

    def own() -> Iterator[Callable[[], object]]:
        yield meet
        yield from clock.calls(itertools.repeat(1_000_000))

    runs, settled = warm_up_callers([own() for _ in range(3)], clock)
    assert settled
    assert runs == clock.runs + 3
    assert runs >= 3 * 2 * thresholds.WARMUP_WINDOW_RUNS  # two windows, three times as long


def test_warm_up_of_slow_callers_makes_each_ones_fewest_runs() -> None:
    clock = OwnClocks()
    callers = [clock.calls(itertools.repeat(9 * SECOND_NS)) for _ in range(2)]
    assert warm_up_callers(callers, clock) == (2 * thresholds.WARMUP_MIN_RUNS, False)
    assert clock.runs == 2 * thresholds.WARMUP_MIN_RUNS


def test_what_a_caller_raises_while_warming_up_is_raised() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        warm_up_callers([itertools.repeat(fail)] * 2)


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
