from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil
import pytest

from mbexport import thresholds
from mbexport.bench import conditions, opening, worker
from mbexport.bench.plan import Cell, WorkerPlan
from mbexport.errors import InputError
from mbexport.profile import Conditions
from mbexport.runtimes import ENGINES, SessionFacts, SessionOptions
from tests.tiny import pictures, tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass
class Recorder:
    """A runtime and session that writes down what is asked of it, in order."""

    said: list[str] = field(default_factory=list)
    opened: list[tuple[Path, str, SessionOptions]] = field(default_factory=list)
    bound: list[NDArray[Any]] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)
    package: str = "recorder"

    def import_package(self) -> object:
        self.said.append("import")
        return sys

    def open(self, model: Path, device: str, options: SessionOptions) -> Self:
        self.said.append("open")
        self.opened.append((model, device, options))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.said.append("close")

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        index = len(self.bound)
        self.bound.append(feeds["input"])
        if index == 0:
            self.said.append("bind")
        return lambda: self.ran.append(index)

    def bind_inner(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        pass

    @property
    def callers(self) -> int:
        return 3

    def facts(self) -> SessionFacts:
        self.said.append("facts")
        return SessionFacts("bf16", {"cpu": 7}, options={"streams": "1"}, versions={"recorder": "1.2"})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setitem(ENGINES, "double", f"{__name__}:make")
    monkeypatch.setattr(sys.modules[__name__], "make", lambda: made, raising=False)
    return made


def plan(artifact: Path, **changes: Any) -> WorkerPlan:
    usual = {"target": "double:cpu", "mode": "production", "threads": 3, "batch": 2}
    cell = Cell(artifact=str(artifact), sha256="aa", **{**usual, **changes})
    return WorkerPlan(cell=cell, min_samples=9, min_time_s=0, max_time_s=9)


def test_cold_start_comes_first_and_the_facts_last(recorder: Recorder, tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    found = worker.measure(plan(artifact.path))
    assert recorder.said == ["import", "open", "bind", "facts", "close"]
    assert recorder.opened == [
        (artifact.path / "model.onnx", "cpu", SessionOptions(mode="production", threads=3, batch=2, size=(8, 8)))
    ]
    assert (found.precision, found.placement, found.engine_options) == ("bf16", {"cpu": 7}, {"streams": "1"})
    assert found.versions["recorder"] == "1.2"
    assert found.input_size is None  # the spec says it
    assert len(found.replicate.samples_ns) == 9


def test_every_run_is_counted_and_takes_its_input_in_turn(recorder: Recorder, tmp_path: Path) -> None:
    found = worker.measure(plan(tiny_artifact(tmp_path, count=3).path))
    first, *rest = recorder.ran
    assert first == 0
    assert len(rest) == found.replicate.warmup_runs + 9
    assert rest == [1 + run % 3 for run in range(len(rest))]


def test_every_caller_warms_up_before_any_is_measured(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm: list[int] = []

    def note(*_: object, **__: object) -> Conditions:
        if not warm:  # the first reading follows the warm-up
            warm.extend(recorder.ran[1:])
        return Conditions()

    monkeypatch.setattr(conditions, "read_conditions", note)
    artifact = tiny_artifact(tmp_path, count=3).path
    found = worker.measure(plan(artifact, scenario="concurrent", concurrency=3))
    assert len(warm) == found.replicate.warmup_runs
    runs = Counter((index - 1) // 3 for index in warm)  # of three feeds each
    assert runs.keys() == {0, 1, 2}
    assert min(runs.values()) >= thresholds.WARMUP_MIN_RUNS
    assert len(recorder.ran) == 1 + found.replicate.warmup_runs + len(found.replicate.samples_ns)


def test_inputs_are_reference_pictures_going_round(recorder: Recorder, tmp_path: Path) -> None:
    found = worker.measure(plan(tiny_artifact(tmp_path, count=3).path, batch=2))
    probes = pictures(3)
    for feed, chosen in zip(recorder.bound[1:], ([0, 1], [1, 2], [2, 0]), strict=True):
        np.testing.assert_array_equal(feed, probes[chosen])
    digest = hashlib.sha256()
    for feed in recorder.bound[1:]:
        digest.update(b"input float32 (2, 8, 8, 3)" + feed.tobytes())
    assert found.inputs_sha256 == digest.hexdigest()


@pytest.mark.parametrize(("count", "batch", "feeds"), [(1, 1, 1), (2, 5, 2), (9, 1, 4), (3, 7, 3)])
def test_rotation_has_as_many_feeds_as_there_are_pictures_up_to_four(count: int, batch: int, feeds: int) -> None:
    made = opening.rotate({"input": pictures(count)}, batch)
    assert [feed["input"].shape for feed in made] == [(batch, 8, 8, 3)] * feeds
    assert len({feed["input"].tobytes() for feed in made}) == feeds


def test_a_batch_beyond_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    available = psutil.virtual_memory().available
    with pytest.raises(InputError, match=r"batch \d+ needs .* GB .* choose a smaller --batch"):
        opening.rotate({"input": pictures(2)}, available // pictures(1).nbytes)


def test_throughput_counts_pictures_by_the_wall_clock(recorder: Recorder, tmp_path: Path) -> None:
    found = worker.measure(plan(tiny_artifact(tmp_path).path, batch=2)).replicate
    longest_s = sum(found.samples_ns) * 1e-9
    assert 0 < found.throughput_per_s <= 2 * 9 / longest_s
