from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest

from mbexport.bench import run as bench_run
from mbexport.errors import ProcessError
from mbexport.profiles import read_profile, write_profile
from tests.colours import colour_artifact, int8_beside
from tests.measured import HARDWARE
from tests.test_cli_results import invoke
from tests.tuning import FOLDER, is_int8, on_machine

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.bench.plan import Cell

ROOT = Path(__file__).parents[1]
STORED = Path("profiles") / FOLDER / "colours.json"
WHERE = ["--runtime", "ort:cpu", "--runtime", "openvino:cpu"]


def int8_wins(cell: Cell, _before: int) -> float:
    if is_int8(cell) and cell.threads == 2:
        return 1e-3 if cell.options else 1.5e-3
    return 2e-3 + cell.threads * 1e-5


def float32_wins(cell: Cell, _before: int) -> float:
    return 3e-3 if is_int8(cell) else 2e-3


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.chdir(tmp_path)
    made = colour_artifact(tmp_path / "artifacts", weights="random")
    int8_beside(made)
    return made


def test_json_is_one_document_by_its_schema(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, int8_wins)
    done = invoke("tune", str(artifact.path), *WHERE, "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    schema = json.loads((ROOT / "docs" / "tune.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["profile"] == str(STORED)
    assert Path(document["path"]) == artifact.path.with_name("colours_int8")
    found = document["tuned"]
    assert found["go"] is True
    assert found["over_float32"]["value"] == pytest.approx(2.01)
    assert json.loads(STORED.read_text())["tuned"] == [found]
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "profile.schema.json").read_text())).validate(
        json.loads(STORED.read_text())
    )


@pytest.mark.parametrize(("latency_s", "code"), [(int8_wins, 0), (float32_wins, 1)])
def test_require_go(latency_s: Any, code: int, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is printed and stored all the same."""
    on_machine(monkeypatch, latency_s)
    assert invoke("tune", str(artifact.path), *WHERE, "--json").exit_code == 0
    done = invoke("tune", str(artifact.path), *WHERE, "--json", "--require-go")
    assert done.exit_code == code
    assert json.loads(done.stdout)["tuned"]["go"] is (code == 0)
    assert STORED.is_file()


@pytest.mark.parametrize("objective", ["p50", "p99", "throughput"])
def test_table_fits_80_columns_and_says_what_to_run(
    objective: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, int8_wins)
    done = invoke("tune", str(artifact.path), *WHERE, "--objective", objective)
    assert done.exit_code == 0
    unlimited = ("model:", "profile:", "no --images", "random weights", "measure it again")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line for line in lines if len(line) > 80 and not any(word in line for word in unlimited)] == []
    assert "go" in lines
    assert f"  model:   {artifact.path.with_name('colours_int8')}/model.onnx" in lines
    assert any(line.endswith("mbexport bench " + str(artifact.path) + " --tuned") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-drop", "-1"], "--max-drop must be 0 to 100 points, not -1"),
        (["--objective", "mean"], "unknown --objective 'mean'"),
        (["--budget", "soon"], "a budget must be a time"),
        (["--budget", "3s"], "too small"),
        (["--images", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_usage_prints_one_line_and_writes_nothing(
    arguments: list[str], message: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, int8_wins)
    done = invoke("tune", str(artifact.path), *WHERE, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not Path("profiles").exists()


def test_profile_show_tells_what_was_tuned(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, int8_wins)
    invoke("tune", str(artifact.path), *WHERE)
    (tuned,) = read_profile(STORED).tuned
    shown = " ".join(invoke("profile", "show").stdout.split())
    wanted = tuned.configuration
    assert f"tuned for p50 on {tuned.tuned_on[:10]}: go, 2.01 x [2.01, 2.01] over float32's best" in shown
    assert f"{wanted.runtime} {wanted.mode}, {tuned.precision}, {wanted.threads} thr., batch 1" in shown
    (document,) = json.loads(invoke("profile", "show", "colours", "--json").stdout)["profiles"]
    assert document["tuned"] == [json.loads(msgspec.json.encode(msgspec.structs.replace(tuned, trials=[])))]


@pytest.mark.parametrize("latency_s", [int8_wins, float32_wins])
def test_what_was_tuned_takes_two_lines_and_tells_go_or_not(
    latency_s: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, latency_s)
    invoke("tune", str(artifact.path), *WHERE, "--objective", "throughput")
    lines = invoke("profile", "show", "colours").stdout.splitlines()
    (at,) = [place for place, line in enumerate(lines) if line.startswith("tuned for throughput on ")]
    assert (": go, " if latency_s is int8_wins else ": no-go;") in lines[at]
    assert lines[at + 1].rstrip().endswith("(max drop 0.5)")
    assert max(len(line.rstrip()) for line in lines[at : at + 2]) <= 80


def test_a_no_go_says_what_it_is_and_not_how_much_faster_than_itself(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, float32_wins)
    shown = invoke("tune", str(artifact.path), *WHERE).stdout
    assert "no-go: nothing narrower is faster than float32 beyond the noise; float32's best:" in shown
    assert "faster than the best in float32" not in shown


def test_no_gain_over_defaults_that_were_not_timed(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_default(cell: Cell, before: int) -> float:
        if not is_int8(cell) and cell.model is None and cell.mode == "parity":
            raise ProcessError("the process was killed by SIGSEGV")
        return int8_wins(cell, before)

    on_machine(monkeypatch, no_default)
    shown = invoke("tune", str(artifact.path), *WHERE).stdout
    assert "faster than the best in float32" in shown
    assert "at the defaults of" not in shown


def test_bench_tuned_measures_exactly_that(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = on_machine(monkeypatch, int8_wins)
    invoke("tune", str(artifact.path), *WHERE, "--json")
    machine.plans.clear()
    monkeypatch.setattr(bench_run, "run_worker", machine)
    done = invoke("bench", str(artifact.path), "--tuned", "--json")
    assert done.exit_code == 0
    (cell,) = set(machine.cells())
    (tuned,) = read_profile(STORED).tuned
    wanted = tuned.configuration
    assert (cell.sha256, cell.target, cell.mode) == (wanted.sha256, wanted.runtime, wanted.mode)
    assert (cell.threads, cell.concurrency, dict(cell.options)) == (2, 1, wanted.options)
    assert wanted.options
    (row,) = json.loads(done.stdout)["rows"]
    assert row["artifact"] == "colours_int8"
    assert row["asked_options"] == wanted.options
    assert row["p50_s"] == pytest.approx(1e-3)
    shown = invoke("bench", str(artifact.path), "--tuned").stdout
    assert " ".join(f"{name}={value}" for name, value in wanted.options.items()) in shown


def test_bench_tuned_takes_the_strictest_that_lies_here(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one objective; one whose file was built again since is passed over while there is another."""
    machine = on_machine(monkeypatch, int8_wins)
    invoke("tune", str(artifact.path), *WHERE)
    monkeypatch.setattr(bench_run, "run_worker", machine)
    stored = read_profile(STORED)
    (found,) = stored.tuned
    other = msgspec.structs.replace(found.configuration, threads=1, options={})
    strict = msgspec.structs.replace(found, max_drop=0.001, configuration=other)
    gone = msgspec.structs.replace(strict, configuration=msgspec.structs.replace(other, model_sha256="0" * 64))
    for tuned, threads in (([strict, found], 1), ([gone, found], found.configuration.threads)):
        write_profile(STORED, msgspec.structs.replace(stored, tuned=tuned))
        machine.plans.clear()
        assert invoke("bench", str(artifact.path), "--tuned", "--fresh").exit_code == 0
        assert {cell.threads for cell in machine.cells()} == {threads}


def test_bench_tuned_without_one_names_tune(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, int8_wins)
    done = invoke("bench", str(artifact.path), "--tuned")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"find one with: mbexport tune {artifact.path}" in done.stderr


def test_bench_tuned_of_another_build_names_tune(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, int8_wins)
    invoke("tune", str(artifact.path), *WHERE, "--json")
    stored = read_profile(STORED)
    rebuilt = msgspec.structs.replace(stored, artifact_sha256="f" * 64)
    elsewhere = msgspec.structs.replace(stored, hardware=msgspec.structs.replace(HARDWARE, cpu_stepping=9))
    for profile, message in ((rebuilt, "was tuned with another model.onnx"), (elsewhere, "is of another machine")):
        write_profile(STORED, profile)
        done = invoke("bench", str(artifact.path), "--tuned")
        assert done.exit_code == 2
        assert message in done.stderr
        assert "mbexport tune" in done.stderr
    write_profile(STORED, stored)
    int8_beside(artifact, swap=(1, 2))
    done = invoke("bench", str(artifact.path), "--tuned")
    assert done.exit_code == 2
    assert "does not lie beside" in done.stderr


def test_bench_tuned_takes_no_other_choice(artifact: Artifact) -> None:
    for arguments in (["--threads", "1"], ["--runtime", "ort:cpu"], ["--offline"], ["--ops"]):
        done = invoke("bench", str(artifact.path), "--tuned", *arguments)
        assert done.exit_code == 2
        assert "--tuned measures what was tuned" in done.stderr
