"""Rounds of fresh processes: every candidate of a network once, in a new order each time."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from peer_bench.prepare import last_line
from peer_bench.records import Refused, Round, Task, Timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peer_bench.records import CellPlan, ModelFile, Plan

Turn = tuple[int, str, int]
"""(replicate, network, threads)."""
PROCESS_LIMIT_S = 120.0


def turns(plan: Plan) -> Iterator[Turn]:
    """All networks once, then all again: a replicate spans the whole run's drift, a round only its own."""
    for replicate in range(plan.replicates):
        for slug in plan.cells:
            for threads in plan.threads:
                yield replicate, slug, threads


def shuffled(keys: Sequence[str], turn: Turn) -> list[str]:
    """The candidates in an order of this turn's own, the same whenever it is asked for."""
    order = list(keys)
    random.Random(repr(turn)).shuffle(order)
    return order


def round_path(work: Path, turn: Turn) -> Path:
    replicate, slug, threads = turn
    return work / "rounds" / f"{slug}-t{threads}-r{replicate}.json"


def read_round(work: Path, plan: Plan, turn: Turn) -> Round | None:
    """The round as measured before with the same files, versions, machine and times; None where there is none."""
    path = round_path(work, turn)
    if not path.is_file():
        return None
    found = msgspec.json.decode(path.read_bytes(), type=Round)
    return found if found.setup == plan.setup(turn[1]) else None


def measure_round(work: Path, plan: Plan, turn: Turn) -> Round:
    """Measure one round and store it whole: an interrupted one is measured again."""
    replicate, slug, threads = turn
    cell: CellPlan = plan.cells[slug]
    runs = {
        key: run_process(task_of(work, key, cell.files[key], threads, plan.min_time_s))
        for key in shuffled(list(cell.files), turn)
    }
    done = Round(
        setup=plan.setup(slug),
        cell=slug,
        threads=threads,
        replicate=replicate,
        measured_on=datetime.now(UTC).date().isoformat(),
        runs=runs,
    )
    serde.write_atomic(round_path(work, turn), msgspec.json.encode(done))
    return done


def task_of(work: Path, key: str, file: ModelFile, threads: int, min_time_s: float) -> Task:
    return Task(
        engine=key.partition("/")[0],
        model=str(work / file.path),
        feeds=str(work / file.feeds),
        input_name=file.input_name,
        answers=file.answers,
        threads=threads,
        min_time_s=min_time_s,
    )


def run_process(task: Task) -> Timed | Refused:
    """Measure in a fresh process; whatever it dies of is the outcome."""
    command = [sys.executable, "-m", "peer_bench.worker"]
    folder = Path(__file__).parents[1]
    try:
        process = subprocess.run(
            command,
            cwd=folder,
            input=msgspec.json.encode(task),
            capture_output=True,
            check=False,
            timeout=PROCESS_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return Refused(reason=f"not done after {PROCESS_LIMIT_S:.0f} s", wrong=False)
    if process.returncode:
        words = last_line(process.stderr.decode(errors="replace"))
        return Refused(reason=words or f"ended with exit code {process.returncode}", wrong=False)
    return msgspec.json.decode(process.stdout, type=Timed | Refused)
