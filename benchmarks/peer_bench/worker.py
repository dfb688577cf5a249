"""The measuring process: ``python -m peer_bench.worker``, a task on stdin, an outcome on stdout, both JSON.

It imports NumPy and one engine. The answers are checked before anything is timed.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mbexport.bench import conditions
from mbexport.bench.timing import Limits, time_calls, warm_up
from mbexport.compare import sqnr_db
from mbexport.runtimes import SessionOptions, load_engine
from peer_bench.answers import logits_of
from peer_bench.records import Refused, Task, Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

MIN_SAMPLES = 64
LIMIT_DB = 80.0
"""Least SQNR of a peer's logits against Keras's.

Another order of float32 sums stands 95 dB and more from Keras; weights kept in float16 would stand about 60, bfloat16
arithmetic below 30.
"""


def measure(task: Task) -> Timed | Refused:
    with np.load(task.feeds) as stored:
        pictures, truth = stored["input"], stored["logits"]
    feeds = [np.ascontiguousarray(pictures[row : row + 1]) for row in range(len(pictures))]
    answers, calls, precision = open_model(task, feeds)
    ratio = sqnr_db(truth, logits_of(answers, task.answers))
    if not ratio >= LIMIT_DB:
        return Refused(reason=f"SQNR {ratio:.1f} dB against the reference, {LIMIT_DB:.0f} dB wanted", wrong=True)
    if precision != "f32":
        return Refused(reason=f"computes in {precision}", wrong=True)
    warmup_runs, settled = warm_up(calls)
    before = conditions.read_cpu_times()
    samples_ns, _ = time_calls(calls, Limits(MIN_SAMPLES, min_time_s=task.min_time_s))
    after = conditions.read_conditions(before, conditions.read_cpu_times())
    return Timed(
        samples_ns=samples_ns,
        warmup_runs=warmup_runs,
        warmup_settled=settled,
        sqnr_db=float(ratio),
        steal_share=after.steal_share,
        others_share=after.others_share,
    )


def open_model(
    task: Task, feeds: list[NDArray[np.float32]]
) -> tuple[NDArray[Any], Iterator[Callable[[], object]], str]:
    """The answers to all feeds, an endless row of calls that take the feeds in turn, and the effective precision."""
    path = Path(task.model)
    if task.engine == "litert":
        from peer_bench.litert import LiteRtSession

        lite = LiteRtSession(path, task.threads)
        # A float32 model computes in float32 unless the caller allows float16; LiteRT does not tell.
        return np.concatenate([lite.run(feed) for feed in feeds]), lite.calls(feeds), "f32"
    options = SessionOptions(mode="parity", threads=task.threads, batch=1)
    session = load_engine(task.engine).open(path, "cpu", options)
    named = [{task.input_name: feed} for feed in feeds]
    answers = np.concatenate([next(iter(session.run(feed).values())) for feed in named])
    return answers, itertools.cycle([session.bind(feed) for feed in named]), session.facts().precision


def main() -> None:
    """Keep the real stdout for the outcome, and send what engines print there to stderr."""
    outcome_file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    outcome = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Task))
    with outcome_file:
        outcome_file.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
