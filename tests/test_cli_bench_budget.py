"""What ``bench --budget`` says before it measures."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from mbexport.bench import run
from mbexport.errors import ProcessError
from mbexport.operators import table
from mbexport_cli.app import app
from tests.measured import answer
from tests.tiny import tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.bench.plan import ColdPlan, WorkerAnswer, WorkerPlan
    from mbexport.operators.table import OperatorTable
    from mbexport.profile import ColdStart


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run_worker", lambda _plan: answer([2_000_000] * 40))
    return tmp_path


def invoke(here: Path, *arguments: str) -> Result:
    where = ["bench", str(tiny_artifact(here).path), "--runtime", "ort:cpu", "--mode", "parity"]
    return CliRunner().invoke(app, [*where, *arguments])


def test_said_on_stderr_beside_one_document(here: Path) -> None:
    """20 s over five processes are 3 s of measuring in each: 15 s for 662 samples, or for 64."""
    done = invoke(here, "--budget", "20s", "--json")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "20 s for 1 row: 5 processes a row, each measuring for about 3 s",
        "enough for p99 of calls up to about 23 ms, for p90 of calls up to 230 ms",
    ]
    assert json.loads(done.stdout)["budget"].keys() == {
        *("budget_s", "rows", "processes_per_row", "processes", "measuring_s"),
        *("p50_up_to_s", "p90_up_to_s", "p99_up_to_s"),
    }


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_said_before_the_first_process(verbose: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_plan: WorkerPlan) -> WorkerAnswer:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_worker", stop)
    done = invoke(here, "--budget", "20s", *verbose)
    assert done.stdout == ""
    assert done.stderr.startswith("20 s for 1 row: ")


def test_a_bench_that_goes_on_says_what_is_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[WorkerPlan] = []

    def stop_at_third(plan: WorkerPlan) -> WorkerAnswer:
        if len(plans) == 2:
            raise KeyboardInterrupt
        plans.append(plan)
        return answer([2_000_000] * 40)

    with monkeypatch.context() as patch:
        patch.setattr(run, "run_worker", stop_at_third)
        assert invoke(here, "--budget", "20s").exit_code != 0
    done = invoke(here, "--budget", "20s")
    first, _, taken = done.stderr.splitlines()
    assert first == "20 s for 1 row: 3 of 5 processes to run, each measuring for about 3 s"
    assert re.fullmatch(
        r"2 processes taken over from \d\d:\d\d, when a bench was stopped; bench --fresh measures them again", taken
    )


def test_fresh_starts_anew(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([answer([2_000_000] * 40)])
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_worker", lambda _plan: _next_or_stop(answers))
        assert invoke(here).exit_code != 0
    done = invoke(here, "--fresh", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["taken_over"] is None


def _next_or_stop(answers: Iterator[WorkerAnswer]) -> WorkerAnswer:
    for found in answers:
        return found
    raise KeyboardInterrupt


def test_stopped_in_the_operators_part_it_measures_no_row_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_arguments: object) -> list[OperatorTable]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(table, "watched", stop)
        assert invoke(here, "--ops").exit_code != 0
    monkeypatch.setattr(run, "run_worker", stop)
    monkeypatch.setattr(table, "watched", lambda *_arguments: [])
    done = invoke(here, "--ops", "--json")
    assert (done.exit_code, json.loads(done.stdout)["resumed"]) == (0, 1)
    assert not list(here.glob("profiles/*/.unfinished"))


def test_what_could_not_be_prepared_is_told_beside_the_row(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_plan: ColdPlan) -> ColdStart:
        raise ProcessError("the process was killed")

    monkeypatch.setattr(run, "run_cold", die)
    done = invoke(here, "--cold")
    assert done.exit_code == 1
    assert "measured, but did not start with what its engine kept: the process was killed" in done.stdout
    assert "profile: " in done.stdout


@pytest.mark.parametrize("budget", ["99999999999999999999h", "25h"])
def test_more_than_a_day_is_refused(budget: str, here: Path) -> None:
    done = invoke(here, "--budget", budget)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "at most 24h" in done.stderr


def test_without_a_budget_nothing_is_said(here: Path) -> None:
    done = invoke(here, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["budget"] is None


def test_a_budget_that_is_refused_says_nothing_else(here: Path) -> None:
    (here / "profiles").write_text("a file")
    done = invoke(here, "--budget", "20s", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
