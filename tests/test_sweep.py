"""A grid of cells: each once, whatever fails or is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import psutil
import pytest

from mbexport import cached
from mbexport.artifact import REFERENCE, read_artifact, read_reference
from mbexport.bench.settings import Settings as BenchSettings
from mbexport.cache import Cache
from mbexport.errors import InputError, OutputError
from mbexport.pipeline import build
from mbexport.spec import ExportOptions, ModelSpec
from mbexport.sweep.cells import Cell, grid
from mbexport.sweep.run import Settings, sweep
from tests.test_cli_results import invoke

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.sweep.run import CellResult

ORT = ["ort:cpu"]
SMALLEST = ModelSpec(variant="small", alpha=0.35, height=32, width=32, classes=10)
OPTIONS = ["--variant", "small", "--alpha", "0.35", "--classes", "10", "--runtime", "ort:cpu", "--no-bench"]


def cells(*resolutions_px: int, **changes: Any) -> list[Cell]:
    return [Cell(spec=SMALLEST.at(side, side), **changes) for side in resolutions_px]


def settings(folder: Path, **changes: Any) -> Settings:
    usual: dict[str, Any] = {"out": folder / "artifacts", "cache": folder / "cache", "targets": ORT}
    usual |= {"workers": 2, "threads": 2}
    return Settings(**(usual | changes))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where three cells were swept. Do not change its cache."""
    folder = tmp_path_factory.mktemp("sweep")
    report = sweep(cells(32, 64, 96), settings(folder))
    assert report.passed
    assert not any(result.cached for result in report.cells)
    return folder


def assert_is_what_build_makes(found: Artifact, alone: Artifact) -> None:
    """To the byte but for Keras's answers, whose last bits depend on how many threads it has: a worker's has one."""
    files = {name: digest for name, digest in found.manifest.files.items() if name != REFERENCE}
    assert found.manifest == msgspec.structs.replace(
        alone.manifest, files=files | {REFERENCE: found.manifest.files[REFERENCE]}
    )
    for one, other in zip(read_reference(found).each, read_reference(alone).each, strict=True):
        assert_close(one.inputs, other.inputs, 0.0)
        assert_close(one.keras_float64, other.keras_float64, 1e-12)
        assert_close(one.keras_float32, other.keras_float32, 1e-4)


def assert_close(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, array in other.items():
        np.testing.assert_allclose(one[name], array, rtol=tolerance, atol=tolerance)


def test_artifacts_are_those_that_build_makes(swept: Path, tmp_path: Path) -> None:
    alone = build(SMALLEST.at(64, 64), out=tmp_path).artifact
    assert_is_what_build_makes(read_artifact(swept / "artifacts" / alone.manifest.slug), alone)


def test_the_same_again_comes_from_the_cache(swept: Path, tmp_path: Path) -> None:
    seen: list[CellResult] = []
    report = sweep(cells(32, 64, 96), settings(swept, out=tmp_path / "again"), observe=seen.append)
    assert [result.cached for result in report.cells] == [True] * 3
    assert len(seen) == 3
    for result in report.cells:
        first = read_artifact(swept / "artifacts" / result.name)
        assert read_artifact(tmp_path / "again" / result.name).manifest == first.manifest
        assert result.validation is not None
        assert result.validation.passed


def test_a_cell_that_fails_stops_no_other(swept: Path, tmp_path: Path) -> None:
    bad = Cell(spec=SMALLEST, weights=str(tmp_path / "nowhere.weights.h5"))
    report = sweep([bad, *cells(64, 96)], settings(swept, out=tmp_path / "out"))
    assert not report.passed
    assert [result.passed for result in report.cells] == [False, True, True]
    assert "nowhere.weights.h5" in (report.cells[0].error or "")
    assert not (tmp_path / "out" / bad.name).exists()


def test_a_golden_picture_that_is_none_fails_its_cells_alone(swept: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden"
    golden.mkdir()
    (golden / "a.png").write_bytes(b"no picture")
    report = sweep(cells(32), settings(swept, out=tmp_path / "out", golden=golden))
    assert "a.png" in (report.cells[0].error or "")


def test_rows_are_measured_once(swept: Path, tmp_path: Path) -> None:
    bench = BenchSettings(modes=("parity",), threads=[1], budget_s=8.0)
    asked = settings(swept, out=tmp_path / "out", bench=bench, profiles=tmp_path / "profiles")
    first = sweep(cells(32), asked)
    (row,) = first.cells[0].rows
    assert (row.runtime, row.mode, row.threads) == ("ort:cpu", "parity", 1)
    (profile,) = (tmp_path / "profiles").rglob("*.json")
    written = profile.read_bytes()
    assert sweep(cells(32), asked).cells[0].rows == [row]
    assert profile.read_bytes() == written
    profile.write_bytes(written.replace(row_version().encode(), b"0.0.1"))
    assert sweep(cells(32), asked).cells[0].rows != [row], "another engine's row"


def row_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def test_a_damaged_entry_is_built_again(swept: Path, tmp_path: Path) -> None:
    told: list[str] = []
    cache = Cache(tmp_path / "cache", told.append)
    first, _ = cached.build(cache, SMALLEST, out=tmp_path / "one")
    (entry,) = (tmp_path / "cache" / "entries").iterdir()
    (entry / "model.onnx").write_bytes(b"damaged")
    second, was_there = cached.build(cache, SMALLEST, out=tmp_path / "two")
    assert not was_there
    assert "model.onnx" in told[0]
    assert second.artifact.sha256 == first.artifact.sha256


def test_what_changes_an_artifact_changes_its_key(tmp_path: Path) -> None:
    labels, golden = tmp_path / "labels.txt", tmp_path / "golden"
    labels.write_text("\n".join(f"class {number}" for number in range(10)))
    golden.mkdir()
    (golden / "a.png").write_bytes(b"one")
    usual: dict[str, Any] = {"spec": SMALLEST, "export": ExportOptions(), "weights": "random", "seed": 0}
    variants: list[dict[str, Any]] = [
        {},
        {"spec": SMALLEST.at(64, 64)},
        {"export": ExportOptions(layout="nchw")},
        {"seed": 1},
        {"labels": labels},
        {"golden": golden},
    ]
    found = [json.dumps(cached.inputs_of(**(usual | changes)), sort_keys=True) for changes in variants]
    assert len(set(found)) == len(variants)
    (golden / "a.png").write_bytes(b"two")
    assert json.dumps(cached.inputs_of(**(usual | {"golden": golden})), sort_keys=True) not in found


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path) -> None:
    """Killed while it builds, as by a system short of memory."""
    killed: list[int] = []

    def kill(_message: str, _share: float | None) -> None:
        for worker in workers():
            if not killed:
                killed.append(worker.pid)
                worker.kill()

    report = sweep(cells(32, 64, 96), settings(tmp_path, workers=1), progress=kill)
    assert report.passed
    assert len(killed) == 1
    assert list((tmp_path / "cache" / "making").iterdir()) == [], "what it could not remove itself is gone too"


def workers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if "mbexport.sweep.worker" in each.cmdline()]


def test_no_worker_is_left(swept: Path, tmp_path: Path) -> None:
    def stop(_result: CellResult) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        sweep(cells(32, 64), settings(swept, out=tmp_path / "out"), observe=stop)
    assert workers() == []


def test_two_cells_of_one_name() -> None:
    with pytest.raises(InputError, match=r"two cells are called mobilenet_v3_small_0\.35_32"):
        grid([SMALLEST, SMALLEST], ExportOptions(), "random", 0, ["f32"])


def test_a_foreign_folder_is_not_replaced(swept: Path, tmp_path: Path) -> None:
    own = tmp_path / "out" / cells(32)[0].name
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        sweep(cells(32), settings(swept, out=tmp_path / "out"))
    assert (own / "thesis.txt").read_text() == "mine"


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBEXPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    done = invoke("sweep", *OPTIONS, "--resolution", "32,64", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["passed"]
    assert [cell["name"] for cell in found["cells"]] == ["mobilenet_v3_small_0.35_32", "mobilenet_v3_small_0.35_64"]
    page = (tmp_path / "artifacts" / "sweep.md").read_text()
    assert "2 cells, 0 failed" in page
    kept = json.loads(invoke("cache", "list", "--json").stdout)
    assert kept["path"] == str(tmp_path / "cache")
    assert sorted(entry["kind"] for entry in kept["entries"]) == ["build", "build", "validation", "validation"]
    shown = invoke("cache", "list").stdout
    assert "mobilenet_v3_small_0.35_64" in shown
    assert max(map(len, shown.splitlines()[:-1])) < 80
    removed = json.loads(invoke("cache", "prune", "--max-size", "0", "--json").stdout)
    assert len(removed["removed"]) == 4
    assert json.loads(invoke("cache", "list", "--json").stdout)["entries"] == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sweep", "--alpha", "1.0"], "--variant"),
        (["sweep", "--variant", "small,huge"], "huge"),
        (["sweep", "--variant", "small", "--alpha", "1.0,1"], "two cells"),
        (["sweep", "--variant", "small", "--precision", "int8"], "--images"),
        (["sweep", "--variant", "small", "--precision", "int8", "--images", "lost"], "--images lost is not there"),
        (["sweep", "--variant", "small", "--precision", "int8", "--images", "."], "holds 0 pictures; at least 16"),
        (["sweep", "--variant", "small", "--images", "."], "--images calibrates int8 and f16"),
        (["sweep", "--variant", "small", "--precision", "int4"], "int4"),
        (["sweep", "--variant", "small", "--workers", "0"], "--workers"),
        (
            ["sweep", "--variant", "small", "--runtime", "ort:cpu,ort:cuda", "--scheduler", "tcp://127.0.0.1:1"],
            "unknown runtime 'ort:cpu,ort:cuda'",
        ),
        (["sweep", "--variant", "small,,large"], "variant"),
        (["cache", "prune", "--max-size", "much"], "'much'"),
        (["cache", "prune", "--max-size", "-1"], "'-1'"),
    ],
)
def test_bad_input(arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBEXPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals that cannot be caught")
def test_killed_and_asked_again(tmp_path: Path) -> None:
    environment = {**os.environ, "MBEXPORT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "mbexport_cli", "sweep", *OPTIONS, "--resolution", "32,64", "--workers", "1"]
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list((tmp_path / "cache").glob("entries/*")):
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.communicate()
    there = {path.name: (path / "entry.json").stat().st_ino for path in (tmp_path / "cache" / "entries").iterdir()}
    done = subprocess.run([*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["passed"]
    for name, inode in there.items():
        assert (tmp_path / "cache" / "entries" / name / "entry.json").stat().st_ino == inode, "it was made twice"
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir() if not path.name.startswith(".")) == [
        "mobilenet_v3_small_0.35_32",
        "mobilenet_v3_small_0.35_64",
        "sweep.md",
    ]
