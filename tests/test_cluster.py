"""A sweep on a real scheduler and workers, each a process of its own on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from mbexport import hardware
from mbexport.artifact import read_artifact
from mbexport.bench.settings import Settings as BenchSettings
from mbexport.errors import MissingError, MissingPackageError
from mbexport.pipeline import build
from mbexport.profiles import read_profile
from mbexport.sweep.cluster import cluster, resources_for
from mbexport.sweep.run import Settings, sweep
from tests.test_cli_results import invoke
from tests.test_sweep import OPTIONS, SMALLEST, assert_is_what_build_makes, cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORT = ["ort:cpu"]


@dataclass
class Loopback:
    """A scheduler, and what it takes to start workers."""

    address: str
    folder: Path

    def worker(self, name: str, **resources: int) -> subprocess.Popen[bytes]:
        """One that may do one thing at a time; nobody starts it again when it is killed."""
        own = " ".join(f"{key}={value}" for key, value in resources.items())
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny"]
        command += ["--no-dashboard", "--name", name, "--local-directory", str(self.folder / name)]
        environment = {**os.environ, "MBEXPORT_CACHE": str(self.folder / "cache")}
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, *(["--resources", own] if own else [])], stdout=log, stderr=log, env=environment
            )

    def scheduler(self, name: str) -> tuple[subprocess.Popen[bytes], str]:
        """Another one, and its address."""
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        told = self.folder / f"{name}.json"
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--no-dashboard", "--no-show", "--scheduler-file", str(told)], stdout=log, stderr=log
            )
        while not (told.exists() and told.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        return process, str(json.loads(told.read_text())["address"])

    def waits_for(self, count: int) -> None:
        """Until so many workers are there."""
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=30)


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A scheduler with a worker that may measure and one that may not."""
    place = Loopback("", tmp_path_factory.mktemp("cluster"))
    scheduler, place.address = place.scheduler("scheduler")
    workers = [place.worker("measuring", bench=1, **{hardware.detect().slug: 1}), place.worker("building")]
    place.waits_for(2)
    yield place
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def settings(folder: Path, **changes: Any) -> Settings:
    usual: dict[str, Any] = {"out": folder / "artifacts", "cache": folder / "cache", "targets": ORT, "workers": 1}
    return Settings(**(usual | {"threads": 2, "profiles": folder / "profiles"} | changes))


def test_artifacts_and_rows_come_back(loopback: Loopback, tmp_path: Path) -> None:
    bench = BenchSettings(modes=("parity",), threads=[1], budget_s=8.0)
    asked = settings(tmp_path, bench=bench)
    with cluster(loopback.address) as crew:
        report = sweep(cells(32, 64), asked, crew=crew)
        assert report.passed, report
        again = sweep(cells(32, 64), asked, crew=crew)
    alone = build(SMALLEST.at(64, 64), out=tmp_path / "alone").artifact
    assert_is_what_build_makes(read_artifact(tmp_path / "artifacts" / alone.manifest.slug), alone)
    assert not (tmp_path / "cache" / "entries").exists(), "the workers have a cache of their own"
    slug = hardware.detect().slug
    for result in report.cells:
        profile = read_profile(tmp_path / "profiles" / slug / f"{result.name}.json")
        assert profile.artifact_sha256 == result.sha256
        assert [row.runtime for row in profile.measurements] == ORT
    assert [result.rows for result in again.cells] == [result.rows for result in report.cells], "measured once"


def test_what_no_worker_has_is_said_at_once(loopback: Loopback, tmp_path: Path) -> None:
    started = time.monotonic()
    with cluster(loopback.address, ["some-other-machine"]) as crew:
        cuda = sweep(cells(32), settings(tmp_path, targets=["ort:cuda"]), crew=crew)
        assert time.monotonic() - started < 10
        other = sweep(cells(32), settings(tmp_path, bench=BenchSettings(threads=[1])), crew=crew)
    assert "no worker of" in (cuda.cells[0].error or "")
    assert '--resources "cuda=1"' in (cuda.cells[0].error or "")
    assert "has bench and some-other-machine" in (other.cells[0].error or "")
    assert other.cells[0].validation is not None, "it was built all the same"


def test_a_killed_workers_cell_is_finished_elsewhere(loopback: Loopback, tmp_path: Path) -> None:
    import distributed

    victim = loopback.worker("victim")
    loopback.waits_for(3)
    killed: list[str] = []

    def kill_when_it_works() -> None:
        with distributed.Client(loopback.address, set_as_default=False) as client:
            address = next(key for key, each in client.scheduler_info()["workers"].items() if each["name"] == "victim")
            while not killed:
                tasks = client.processing()[address]
                if tasks:
                    os.kill(victim.pid, signal.SIGKILL)
                    killed.extend(map(str, tasks))
                time.sleep(0.05)

    watcher = threading.Thread(target=kill_when_it_works, daemon=True)
    with cluster(loopback.address) as crew:
        watcher.start()
        report = sweep(cells(96, 128, 160, 192), settings(tmp_path), crew=crew)
    watcher.join(timeout=5)
    assert killed, "it was in the middle of a cell"
    assert victim.wait(timeout=5) == -signal.SIGKILL
    assert report.passed, report
    assert len(list((tmp_path / "artifacts").iterdir())) == 4


def test_a_cell_that_fails_stops_no_other(loopback: Loopback, tmp_path: Path) -> None:
    bad, good = cells(32, weights=str(tmp_path / "lost.weights.h5")), cells(64)
    with cluster(loopback.address) as crew:
        report = sweep([*bad, *good], settings(tmp_path), crew=crew)
    assert [result.passed for result in report.cells] == [False, True]
    assert "lost.weights.h5" in (report.cells[0].error or "")


def test_a_worker_of_another_version(loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbexport.sweep.cluster.source_digest", lambda: "other")
    with cluster(loopback.address) as crew:
        report = sweep(cells(32), settings(tmp_path), crew=crew)
    assert "another version of mbexport" in (report.cells[0].error or "")


def test_a_pipeline_is_judged_on_the_machine_that_measured(loopback: Loopback, tmp_path: Path) -> None:
    (tmp_path / "mbexport.toml").write_text(
        'runtimes = ["ort:cpu"]\n[gates]\np50_ms = 1000\n[[cells]]\nvariant = "small"\nalpha = 0.35\nresolution = 32\n'
        'classes = 10\n[[outputs]]\npath = "dist/{name}.zip"\n'
    )
    usual = ["pipeline", "run", str(tmp_path / "mbexport.toml"), "--json"]
    slug = hardware.detect().slug
    done = invoke(*usual, "--scheduler", loopback.address, "--hardware", slug)
    assert done.exit_code == 0, done.output
    (cell,) = json.loads(done.stdout)["cells"]
    assert set(cell["result"]["measured_on"]) == {slug}
    assert cell["result"]["machine"] == slug
    assert {(gate["gate"], gate["passed"]) for gate in cell["gates"]} == {("p50_ms", True)}
    assert (tmp_path / "profiles" / slug / f"{cell['name']}.json").is_file()
    assert invoke(*usual, "--hardware", slug).exit_code == 2, "without a scheduler it would be ignored"


def test_a_scheduler_that_goes_is_said_for_every_cell(loopback: Loopback, tmp_path: Path) -> None:
    scheduler, told = loopback.scheduler("other")
    with cluster(told) as crew:
        worker = Loopback(told, tmp_path).worker("late")
        Loopback(told, tmp_path).waits_for(1)
        threading.Timer(3.0, scheduler.kill).start()
        report = sweep(cells(96, 128, 160, 192, 224), settings(tmp_path), crew=crew)
    worker.kill()
    worker.wait()
    scheduler.wait()
    assert not report.passed
    assert f"the scheduler at {told} is gone" in (report.cells[-1].error or "")


def test_needs() -> None:
    assert resources_for(["ort:cpu", "openvino:cpu"]) == {}
    assert resources_for(["ort:cuda", "openvino:gpu", "openvino:npu", "ort:cpu"]) == {
        "cuda": 1,
        "openvino-gpu": 1,
        "openvino-npu": 1,
    }


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbexport.sweep.cluster._CONNECT_S", 0.5)
    with (
        pytest.raises(MissingError, match="no Dask scheduler answers at"),
        cluster("tcp://127.0.0.1:9"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r"mbexport\[dask\]"), cluster("tcp://127.0.0.1:9"):
        pass


def test_the_command_line(loopback: Loopback, tmp_path: Path) -> None:
    usual = ["sweep", *OPTIONS, "--resolution", "32,64", "--out", str(tmp_path / "out"), "--json"]
    done = invoke(*usual, "--scheduler", loopback.address)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["passed"]
    for wrong, code in (
        (["--hardware", "x"], 2),
        (["--scheduler", loopback.address, "--workers", "2"], 2),
        (["--scheduler", ""], 2),
        (["--scheduler", "foo://h:1"], 2),
        (["--scheduler", "h:65536"], 2),
    ):
        assert invoke(*usual, *wrong).exit_code == code
