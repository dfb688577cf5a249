"""What watches operators: ``python -m mbexport.operators.worker``, a cell in, a table out, in JSON."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mbexport import child
from mbexport.artifact import read_artifact
from mbexport.bench.opening import open_cell
from mbexport.bench.plan import Cell
from mbexport.bench.timing import Limits, time_calls, warm_up
from mbexport.operators.accounts import Accounts
from mbexport.operators.rates import measure_rates
from mbexport.operators.table import OperatorsAnswer, OperatorTable
from mbexport.operators.work import read_work
from mbexport.runtimes import SessionOptions, split_target
from mbexport.runtimes.profiled import Watch, load_profiler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.bench.opening import Feeds
    from mbexport.runtimes import Session

RUNS, MOST_S = 100, 5.0
"""Plain and watched runs each. ONNX Runtime's trace grows by 100 kB a run."""
SLOWEST = 10


def watch(cell: Cell) -> OperatorsAnswer:
    """Run a cell plainly, then watched by its engine's profiler, then measure what the machine reaches at best.

    Raises:
        ArtifactError: the artifact is damaged.
        EngineError: the engine cannot run it.
        InputError: the engine has no profiler that is read here, or the batch does not fit into memory.
        MissingError: the engine or the device is not here.
    """
    engine, device = split_target(cell.target)
    profiler = load_profiler(engine)
    artifact = read_artifact(Path(cell.artifact))
    model = artifact.model_path(cell.target)
    opened = open_cell(cell, time.monotonic_ns())
    with opened.session as session:
        plain_p50_s = _plain_p50_s(session, opened.feeds)
        precision = session.facts().precision
    options = SessionOptions(mode=cell.mode, threads=cell.threads, batch=cell.batch, size=opened.input_size)
    profile = profiler(model, device, options, opened.feeds, Watch(RUNS, MOST_S))
    rates = None if profile.note else measure_rates(engine, device, cell.mode, cell.threads, precision)
    graph = read_work(model, {name: array.shape for name, array in opened.feeds[0].items()})
    accounts = Accounts(profile, graph, precision, rates)
    table = OperatorTable(
        artifact=artifact.manifest.slug,
        runtime=cell.target,
        mode=cell.mode,
        precision=precision,
        threads=cell.threads,
        batch=cell.batch,
        input_size=opened.input_size,
        runs=len(profile.run_s),
        plain_p50_s=plain_p50_s,
        watched_p50_s=median(profile.run_s),
        operators_s=accounts.operators_s,
        coverage=accounts.operators_s / plain_p50_s,
        macs=graph.macs,
        attributed_macs=accounts.attributed_macs,
        rates=rates,
        note=profile.note,
        rows=accounts.rows(),
        slowest=accounts.slowest(SLOWEST),
    )
    return OperatorsAnswer(table=table)


def _plain_p50_s(session: Session, feeds: Sequence[Feeds]) -> float:
    calls = itertools.cycle([session.bind(feed) for feed in feeds])
    warm_up(calls)
    samples_ns, _ = time_calls(calls, Limits(RUNS, min_time_s=0, max_time_s=MOST_S))
    return median(samples_ns) * 1e-9


def main() -> int:
    """Answer one cell; the exit code."""
    return child.answer(Cell, watch)


if __name__ == "__main__":
    sys.exit(main())
