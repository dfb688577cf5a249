"""Gates: each passes, fails, or says why it cannot be judged; and the reports say the same of each."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mbexport import hardware
from mbexport.bench.rows import row_of
from mbexport.evaluate import EvaluationReport, EvaluationRow
from mbexport.pipelines.document import GatesTable
from mbexport.pipelines.gates import Evidence, GateResult, judge
from mbexport.pipelines.outputs import OutputResult
from mbexport.pipelines.reports import JUNIT, MARKDOWN, junit, markdown, write_reports
from mbexport.pipelines.run import JudgedCell, PipelineReport
from mbexport.profiles import profile_path, write_profile
from mbexport.spec import ModelSpec
from mbexport.sweep.cells import Cell
from mbexport.sweep.run import CellResult
from tests.measured import HARDWARE, measurement, profile, replicate
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.profile import Measurement


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny_artifact(tmp_path, TinyNetwork())


@pytest.fixture(autouse=True)
def _this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect", lambda: HARDWARE)


def row(ms: float, **changes: Any) -> Measurement:
    """Three processes of 300 calls, each of which took so long."""
    usual: dict[str, Any] = {"mode": "production", "replicates": [replicate([int(ms * 1e6)] * 300)] * 3}
    return measurement(**(usual | changes))


def evaluation(**changes: Any) -> EvaluationReport:
    usual: dict[str, Any] = {"runtime": "ort:cpu", "precision": "int8", "top1": 0.8, "top5": 0.9}
    usual |= {"top1_ci": (0.7, 0.9), "top5_ci": (0.8, 1.0)}
    return EvaluationReport(
        artifact="tiny",
        artifact_sha256="aa",
        input_size=None,
        images=100,
        rows=[EvaluationRow(**(usual | changes))],
        published_top1=None,
        published_source=None,
        disagreements=[],
        failed=[],
        output="probabilities",
        other_outputs=[],
        note=None,
        seconds=1.0,
        images_per_s=100.0,
    )


def judged(artifact: Artifact, tmp_path: Path, *rows: Measurement, told: Any = None, **gates: Any) -> list[GateResult]:
    found = [row_of("tiny", each) for each in rows]
    return judge(
        GatesTable(**gates),
        Evidence(artifact, told, {HARDWARE.slug: found} if found else {}, tmp_path / "profiles"),
        tmp_path,
    )


def states(found: list[GateResult]) -> list[tuple[str, str | None, bool | None]]:
    return [(gate.gate, gate.where, gate.passed) for gate in found]


def test_nothing_asked_nothing_judged(artifact: Artifact, tmp_path: Path) -> None:
    assert judged(artifact, tmp_path, row(1.0), told=evaluation()) == []


def test_size(artifact: Artifact, tmp_path: Path) -> None:
    size_mb = (artifact.path / "model.onnx").stat().st_size / 1e6
    assert states(judged(artifact, tmp_path, max_size_mb=size_mb)) == [("max_size_mb", "model.onnx", True)]
    assert states(judged(artifact, tmp_path, max_size_mb=size_mb * 0.999)) == [("max_size_mb", "model.onnx", False)]


@pytest.mark.parametrize(
    ("gate", "limit", "passed"),
    [
        ("min_top1", 0.8, True),
        ("min_top1", 0.81, False),
        ("min_top5", 0.9, True),
        ("min_top5", 0.91, False),
        ("max_drop", 0.02, True),
        ("max_drop", 0.01, False),
        ("max_flips", 0.05, True),
        ("max_flips", 0.03, False),
    ],
)
def test_accuracy(artifact: Artifact, tmp_path: Path, gate: str, limit: float, passed: bool) -> None:
    told = evaluation(float32_top1=0.815, top1_drop=0.015, agreement=0.96)
    assert states(judged(artifact, tmp_path, told=told, **{gate: limit})) == [(gate, "ort:cpu", passed)]


def test_float32_has_nothing_to_lose(artifact: Artifact, tmp_path: Path) -> None:
    (own,) = judged(artifact, tmp_path, told=evaluation(precision="f32"), max_flips=0.0)
    assert own.passed is True
    (lonely,) = judged(artifact, tmp_path, told=evaluation(), max_flips=0.0)
    assert lonely.passed is None
    assert "no float32 artifact" in lonely.reason


def test_latency_here(artifact: Artifact, tmp_path: Path) -> None:
    rows = [row(2.0), row(9.0, mode="parity"), row(9.0, scenario="offline"), row(3.0, runtime="openvino:cpu")]
    assert states(judged(artifact, tmp_path, *rows, p50_ms=2.5)) == [
        ("p50_ms", "ort:cpu", True),
        ("p50_ms", "openvino:cpu", False),
    ]
    slow_tail = row(0.0, replicates=[replicate([2_000_000] * 290 + [8_000_000] * 10)] * 3)
    assert states(judged(artifact, tmp_path, slow_tail, p50_ms=2.5, p99_ms=5)) == [
        ("p50_ms", "ort:cpu", True),
        ("p99_ms", "ort:cpu", False),
    ]


def test_latency_that_cannot_be_trusted(artifact: Artifact, tmp_path: Path) -> None:
    (few,) = judged(artifact, tmp_path, row(1.0, replicates=[replicate([1_000_000] * 10)]), p99_ms=5)
    assert few.passed is False
    assert "10 samples are too few" in few.reason
    (invalid,) = judged(artifact, tmp_path, row(1.0, verdict="invalid", reasons=["stolen time"]), p50_ms=5)
    assert invalid.passed is False
    assert "stolen time" in invalid.reason
    (none,) = judged(artifact, tmp_path, p50_ms=5)
    assert none.passed is None


def test_latency_by_machine(artifact: Artifact, tmp_path: Path) -> None:
    other = msgspec.structs.replace(HARDWARE, cpu="Intel Xeon", cpu_family=6)
    stored = profile(row(7.0), hardware=other, artifact_sha256=artifact.sha256)
    write_profile(profile_path(tmp_path / "profiles", other, "tiny"), stored)
    found = judged(artifact, tmp_path, row(2.0), p50_ms={HARDWARE.slug: 1.0, other.slug: 8.0, "elsewhere": 1.0})
    assert states(found) == [
        ("p50_ms", f"{HARDWARE.slug} ort:cpu", False),
        ("p50_ms", f"{other.slug} ort:cpu", True),
        ("p50_ms", "elsewhere", None),
    ]


@pytest.mark.parametrize(("ms", "slower", "passed"), [(2.0, None, True), (2.3, None, False), (2.3, 0.2, True)])
def test_regression(artifact: Artifact, tmp_path: Path, ms: float, slower: float | None, passed: bool) -> None:
    spread = [2_000_000 + 1000 * (step % 7) for step in range(300)]
    before = measurement(mode="production", replicates=[replicate(spread)] * 5)
    after = measurement(mode="production", replicates=[replicate([int(each * ms / 2) for each in spread])] * 5)
    write_profile(tmp_path / "base" / "tiny.json", profile(before, artifact_sha256="older"))
    write_profile(
        profile_path(tmp_path / "profiles", HARDWARE, "tiny"), profile(after, artifact_sha256=artifact.sha256)
    )
    for baseline in ("base", "base/tiny.json"):
        (found,) = judged(artifact, tmp_path, after, baseline=baseline, max_slower=slower)
        assert found.passed is passed, found.reason


def test_a_baseline_without_its_like(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (found,) = judged(artifact, tmp_path, row(1.0), baseline="base")
    assert (found.passed, found.reason) == (None, f"{tmp_path / 'base'} has no profile of tiny")


def test_a_damaged_baseline_fails(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tiny.json").write_text("{")
    (found,) = judged(artifact, tmp_path, row(1.0), baseline="base")
    assert found.passed is False
    assert "tiny.json" in found.reason


def report(*gates: GateResult, **changes: Any) -> PipelineReport:
    cell = Cell(spec=ModelSpec(variant="small"))
    result = CellResult(name=cell.name, cell=cell, build_s=1.5)
    failed = any(gate.passed is False for gate in gates)
    usual: dict[str, Any] = {"result": result, "evaluation": None, "gates": list(gates), "error": None}
    judged_cell = JudgedCell(name=cell.name, passed=not failed, **(usual | changes))
    output = OutputResult(kind="bundle", path="a|b.zip", cells=[cell.name], passed=False, reason="x did not pass")
    return PipelineReport(pipeline="mbexport.toml", machine="here", passed=False, cells=[judged_cell], outputs=[output])


GATES = [
    GateResult(gate="p99_ms", where="ort:cpu", passed=False, value=7.0, limit=5.0, reason="7 ms, at most 5"),
    GateResult(gate="max_drop", where="ort:cpu", passed=True, value=0.0, limit=0.1, reason="0, at most 0.1"),
    GateResult(gate="baseline", where=None, passed=None, value=None, limit=0.05, reason="no\x00 profile <of> it"),
]


def test_junit_shows_gates_as_tests() -> None:
    root = ET.fromstring(junit(report(*GATES)))
    cell, outputs = root.findall("testsuite")
    assert (cell.get("tests"), cell.get("failures"), cell.get("skipped")) == ("4", "1", "1")
    cases = {case.get("name"): case for case in cell}
    assert set(cases) == {"build", "p99_ms on ort:cpu", "max_drop on ort:cpu", "baseline"}
    failure = cases["p99_ms on ort:cpu"].find("failure")
    assert failure is not None
    assert failure.get("message") == "7 ms, at most 5"
    skipped = cases["baseline"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no? profile <of> it", "XML has no such character"
    assert cases["build"].get("time") == "1.500"
    assert outputs.get("failures") == "1"


def test_junit_of_a_cell_that_was_not_built() -> None:
    cell = Cell(spec=ModelSpec(variant="small"))
    result = CellResult(name=cell.name, cell=cell, error="no weights")
    (build,) = ET.fromstring(junit(report(result=result)))[0]
    assert build.get("name") == "build"
    assert build.find("failure") is not None


def test_markdown_tells_what_is_not_passed() -> None:
    page = markdown(report(*GATES))
    assert page.startswith("# Failed: mbexport.toml")
    assert "1 passed, 1 failed, 1 not judged" in page
    assert "p99_ms on ort:cpu: failed: 7 ms, at most 5" in page
    assert "max_drop on" not in page
    assert "a\\|b.zip" in page, "a bar would end the cell"


def test_reports_are_files(tmp_path: Path) -> None:
    found = report(*GATES)
    paths = write_reports(found, tmp_path)
    assert msgspec.json.decode(paths[0].read_bytes(), type=PipelineReport) == found
    assert json.loads(paths[0].read_bytes())["schema_version"] == 1
    assert (tmp_path / MARKDOWN).read_text() == markdown(found)
    assert (tmp_path / JUNIT).read_bytes() == junit(found)
