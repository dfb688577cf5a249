"""The loops of a measuring process. The clock is an argument, so that tests need not wait."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from mbexport import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Call = Callable[[], object]
    Clock = Callable[[], int]

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """When the measured loop ends: both minima are met, or the maximum is."""

    min_samples: int
    min_time_s: float = thresholds.BENCH_MIN_TIME_S
    max_time_s: float = thresholds.BENCH_MAX_TIME_S

    def are_met(self, elapsed_ns: int, samples: int) -> bool:
        """Whether the loop may end."""
        if elapsed_ns < self.min_time_s * SECOND_NS or samples < self.min_samples:
            return elapsed_ns >= self.max_time_s * SECOND_NS
        return True


def warm_up(calls: Iterator[Call], clock: Clock = time.perf_counter_ns) -> tuple[int, bool]:
    """Run until two successive window medians agree; how many runs that took, and whether they did agree.

    The fewest runs are always made; the time limit ends a warm-up that does not settle.
    """
    window = thresholds.WARMUP_WINDOW_RUNS
    durations: list[int] = []
    start = now = clock()
    while True:
        next(calls)()
        before, now = now, clock()
        durations.append(now - before)
        if len(durations) < thresholds.WARMUP_MIN_RUNS:
            continue
        if len(durations) % window == 0 and _settled(durations[-2 * window : -window], durations[-window:]):
            return len(durations), True
        if now - start >= thresholds.WARMUP_MAX_TIME_S * SECOND_NS:
            return len(durations), False


def time_calls(calls: Iterator[Call], limits: Limits, clock: Clock = time.perf_counter_ns) -> tuple[list[int], int]:
    """Each call's nanoseconds, and those of the whole loop, without the garbage collector."""
    samples: list[int] = []
    with _no_garbage_collection():
        start = clock()
        while True:
            call = next(calls)
            began = clock()
            call()
            ended = clock()
            samples.append(ended - began)
            elapsed = ended - start
            if limits.are_met(elapsed, len(samples)):
                return samples, elapsed


def time_callers(
    callers: Sequence[Iterator[Call]], limits: Limits, clock: Clock = time.perf_counter_ns
) -> tuple[list[int], int]:
    """The same for several callers at once, each a thread of its own; all samples, caller by caller.

    Engines let go of Python's lock while they run, so the callers do run at once. Each stops after the call in which
    the limits were met for all of them together; the whole ends with the last of them.

    Raises:
        Exception: whatever a call raised.
    """
    if len(callers) == 1:
        return time_calls(callers[0], limits, clock)
    samples: list[list[int]] = [[] for _ in callers]
    ready = threading.Barrier(len(callers))

    def work(calls: Iterator[Call], own: list[int]) -> tuple[int, int]:
        ready.wait()
        start = clock()
        while True:
            call = next(calls)
            began = clock()
            call()
            ended = clock()
            own.append(ended - began)
            elapsed = ended - start
            if limits.are_met(elapsed, sum(map(len, samples))):
                return start, ended

    with _no_garbage_collection(), ThreadPoolExecutor(len(callers)) as pool:
        ends = [
            future.result()
            for future in [pool.submit(work, calls, own) for calls, own in zip(callers, samples, strict=True)]
        ]
    wall = max(ended for _, ended in ends) - min(start for start, _ in ends)
    return [sample for own in samples for sample in own], wall


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _settled(older: list[int], newer: list[int]) -> bool:
    if not older:
        return False
    reference = median(older)
    return abs(median(newer) - reference) <= thresholds.WARMUP_SETTLED_SHARE * reference
