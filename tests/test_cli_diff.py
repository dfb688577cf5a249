"""``profile diff`` as a user runs it: promised keys, exit codes, one-line errors, tables of 80 columns."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from mbexport.profiles import write_profile
from mbexport_cli.app import app
from tests.measured import HARDWARE, measurement, profile, replicate

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.profile import Measurement

DOCUMENT = {"a", "b", "across", "threshold", "passed", "rows", "only_a", "only_b", "not_compared", "notes"}
NAME = {"artifact", "runtime", "mode", "precision", "threads", "batch", "scenario", "concurrency", "unusual"}
ROW = NAME | {"a_p50_s", "b_p50_s", "ratio", "ratio_ci", "a_p99_s", "a_verdict", "b_verdict", "b_p99_s"}
ROW |= {"b_precision", "verdict", "reason", "differences"}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", "diff", *arguments])


def row(p50_ms: float, processes: int = 5, **changes: Any) -> Measurement:
    return measurement(replicates=[replicate([round(p50_ms * 1e6)] * 200)] * processes, **changes)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a.json, and b.json where production is 10% slower."""
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path / "a.json", profile(row(2.0), row(2.0, mode="production")))
    write_profile(tmp_path / "b.json", profile(row(2.0, processes=6), row(2.2, mode="production")))
    return tmp_path


def test_json(here: Path) -> None:
    write_profile(here / "c.json", profile(row(2.0, processes=2), row(2.0, mode="production", verdict="invalid")))
    done = invoke("b.json", "c.json", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() == DOCUMENT
    (found,) = document["rows"]
    assert found.keys() == ROW
    assert [found["ratio"], found["ratio_ci"], found["b_p99_s"]] == [pytest.approx(1.0), None, None]
    assert found["verdict"] == "too noisy to tell"
    (ignored,) = document["not_compared"]
    assert ignored.keys() == NAME | {"reason"}
    assert (document["a"], document["b"], document["across"], document["threshold"]) == ("b.json", "c.json", [], 0.05)


@pytest.mark.parametrize(
    ("options", "code", "threshold"),
    [
        ([], 0, 0.05),
        (["--fail-above", "5%"], 1, 0.05),
        (["--fail-above", "0.05"], 1, 0.05),
        (["--fail-above", "20%"], 0, 0.2),
        (["--fail-above", "0"], 1, 0.0),
        (["--fail-above", "120%"], 0, 1.2),
    ],
)
def test_fail_above(here: Path, options: list[str], code: int, threshold: float) -> None:
    done = invoke("a.json", "b.json", *options, "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (code, "")
    assert document["threshold"] == pytest.approx(threshold)
    assert document["passed"] == (threshold > 0.1)
    assert invoke("b.json", "a.json", *options).exit_code == 0  # faster fails no gate


@pytest.mark.parametrize("text", ["-5%", "-0.1", "nan", "inf", "inf%", "5", "1", "%", "", "five", "5%%", "0.05x"])
def test_rubbish_threshold(here: Path, text: str) -> None:
    done = invoke("a.json", "b.json", f"--fail-above={text}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: --fail-above must be a share such as 5% or 0.05, not {text!r}\n"


def test_noise_fails_no_gate_but_is_shown(here: Path) -> None:
    write_profile(here / "c.json", profile(row(3.0, processes=2)))
    done = invoke("a.json", "c.json", "--fail-above", "5%")
    assert done.exit_code == 0
    assert "too noisy" in done.stdout
    assert "ort:cpu parity: 5 and 2 processes" in done.stdout
    assert "only in A: ort:cpu production of tiny, threads: 1, batch: 1" in done.stdout


def test_bad_input_is_one_line(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "text.json").write_text("text")
    (here / "future.json").write_text(json.dumps({"schema_version": 99}))
    other = msgspec.structs.replace(HARDWARE, cpu="Cortex-A76")
    write_profile(here / "two" / "x.json", profile(row(2.0)))
    write_profile(here / "two" / "y.json", profile(row(2.0), hardware=other, artifact="y"))
    write_profile(here / "board.json", profile(row(2.0), hardware=other))
    write_profile(here / "batch.json", profile(row(2.0, batch=8)))
    cases = {
        ("a.json", "missing.json"): "missing.json is neither a profile nor a folder of profiles",
        ("empty", "a.json"): "no profiles in empty",
        ("text.json", "a.json"): "text.json is not valid JSON",
        ("a.json", "future.json"): "schema version 99",
        ("two", "a.json"): "two holds profiles of 2 machines",
        ("a.json", "board.json"): "cannot compare a.json with board.json: cpu AMD EPYC in A, Cortex-A76 in B",
        ("a.json", "batch.json"): "nothing to compare: a.json has tiny: ort:cpu parity, 1 thread, batch 1",
        ("a.json", "b.json", "--across", "weather"): "unknown --across 'weather'",
    }
    for arguments, words in cases.items():
        done = invoke(*arguments, "--json")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_across_is_repeatable_and_told(here: Path) -> None:
    other = msgspec.structs.replace(HARDWARE, cpu="Cortex-A76")
    write_profile(here / "board.json", profile(row(9.0, versions={"onnxruntime": "1.20"}), hardware=other))
    assert invoke("a.json", "board.json", "--across", "hardware").exit_code == 2
    options = ("--across", "hardware", "--across", "runtime-version")
    done = invoke("a.json", "board.json", *options)
    assert done.exit_code == 0
    assert "in question: cpu AMD EPYC in A, Cortex-A76 in B\n" in done.stdout
    assert "in question: onnxruntime 1.31.1 in A, 1.20 in B\n" in done.stdout
    assert json.loads(invoke("a.json", "board.json", *options, "--json").stdout)["across"] == [
        "hardware",
        "runtime-version",
    ]


def test_precisions_are_told(here: Path) -> None:
    narrow: dict[str, Any] = {"mode": "production", "runtime": "openvino:cpu", "precision": "bf16"}
    write_profile(here / "c.json", profile(row(2.0), row(2.0, mode="production"), row(1.0, **narrow)))
    assert "\nprecision: f32; openvino:cpu production bf16\n" in invoke("c.json", "c.json").stdout
    int8 = profile(row(1.0, precision="int8"), artifact="tiny_int8", precision="int8")
    write_profile(here / "int8.json", int8)
    across = ("--across", "artifact", "--across", "precision")
    assert "\nprecision: f32 in A, int8 in B\n" in invoke("a.json", "int8.json", *across).stdout


def test_tables_fit_80_columns_with_names_and_figures_uncut(here: Path) -> None:
    wide: dict[str, Any] = {"runtime": "openvino:gpu.1", "mode": "production"}
    ratios = {1: 0.951, 2: 1.049, 3: 1.1, 4: 0.1, 5: 3.0}
    write_profile(here / "a.json", profile(*[row(18.2, threads=threads, **wide) for threads in ratios]))
    slower = [row(round(18.2 * ratio, 6), threads=threads, **wide) for threads, ratio in ratios.items()]
    write_profile(here / "b.json", profile(*slower, *[row(1.0, threads=n) for n in range(1, 20)]))
    done = invoke("a.json", "b.json", "--fail-above", "5%")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    table = [line.split() for line in lines if line.startswith("openvino:gpu.1  ")]
    assert all(len(line.rstrip()) <= 80 for line in lines if line.startswith(("openvino:gpu.1  ", "p50 ", "──")))
    start = ["openvino:gpu.1", "production", "18.20"]
    # 1.1 / 1.0075 and 1.1 x 1.0075; 5.1% less is within 5% of 1/1.05 = 4.8% less only by the allowance for two runs.
    assert [*start, "20.02", "+10.0%", "+9.2", "to", "+11", "+10%", "slower"] in table
    assert [*start, "17.31", "-4.9%", "-5.6", "to", "-4.2", "-4.9%", "too", "noisy"] in table
    assert [*start, "54.60", "+200%", "+198", "to", "+202", "+200%", "slower"] in table
    assert "only in B: 16 more" in lines
    assert lines[-1] == "2 slower, 1 faster, 2 too noisy to tell; slower and faster: by more than 5% and the noise"


def test_numbers_are_finite(here: Path) -> None:
    def floats(value: object) -> list[float]:
        if isinstance(value, dict):
            return [number for each in value.values() for number in floats(each)]
        if isinstance(value, list):
            return [number for each in value for number in floats(each)]
        return [value] if isinstance(value, float) else []

    found = floats(json.loads(invoke("a.json", "b.json", "--json").stdout))
    assert len(found) > 10
    assert all(math.isfinite(number) for number in found)
