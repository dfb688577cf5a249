"""The loops of a measuring process. The clock is an argument, so that tests need not wait."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from mbexport import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Call = Callable[[], object]
    Clock = Callable[[], int]

Result = TypeVar("Result")

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


class _WarmUp:
    """The durations of all callers' calls in the order in which they ended, and whether they are enough."""

    def __init__(self, callers: int) -> None:
        self.durations: list[int] = []
        self.settled: bool | None = None
        """None while it is not over."""
        self._window = thresholds.WARMUP_WINDOW_RUNS * callers
        self._lock = threading.Lock()

    def run(self, calls: Iterator[Call], clock: Clock) -> None:
        """One caller's part: its fewest runs, and on until it is over for all of them."""
        start = now = clock()
        for run in itertools.count(1):
            next(calls)()
            before, now = now, clock()
            self._add(now - before, now - start)
            if self.settled is not None and run >= thresholds.WARMUP_MIN_RUNS:
                return

    def _add(self, duration_ns: int, elapsed_ns: int) -> None:
        with self._lock:
            self.durations.append(duration_ns)
            if self.settled is not None:
                return
            window, found = self._window, self.durations
            if len(found) % window == 0 and _settled(found[-2 * window : -window], found[-window:]):
                self.settled = True
            elif elapsed_ns >= thresholds.WARMUP_MAX_TIME_S * SECOND_NS:
                self.settled = False


def warm_up(calls: Iterator[Call], clock: Clock = time.perf_counter_ns) -> tuple[int, bool]:
    """Run until two successive window medians agree; how many runs that took, and whether they did agree.

    It settles after two windows at the earliest. A warm-up that does not settle begins no further call once the time
    limit is over; but the fewest runs are always made, however long they take.
    """
    return warm_up_callers([calls], clock)


def warm_up_callers(callers: Sequence[Iterator[Call]], clock: Clock = time.perf_counter_ns) -> tuple[int, bool]:
    """The same for several callers at once, each a thread of its own; the runs of all of them.

    The windows are of all callers' calls together, as many times longer as there are callers. Each makes the fewest
    runs, and all go on until the whole has settled or the time is over: an engine may be slow until it was asked by
    all of them at once.

    Raises:
        Exception: whatever a call raised.
    """
    warming = _WarmUp(len(callers))
    _at_once(callers, lambda _, calls: warming.run(calls, clock))
    return len(warming.durations), bool(warming.settled)


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
    """The same for several callers at once, each a thread of its own; all samples, in the order in which they ended.

    Engines let go of Python's lock while they run, so the callers do run at once. Each stops after the call in which
    the limits were met for all of them together; the whole ends with the last of them.

    Raises:
        Exception: whatever a call raised.
    """
    if len(callers) == 1:
        return time_calls(callers[0], limits, clock)
    ended_and_taken: list[list[tuple[int, int]]] = [[] for _ in callers]

    def work(caller: int, calls: Iterator[Call]) -> int:
        own = ended_and_taken[caller]
        start = clock()
        while True:
            call = next(calls)
            began = clock()
            call()
            ended = clock()
            own.append((ended, ended - began))
            if limits.are_met(ended - start, sum(map(len, ended_and_taken))):
                return start

    with _no_garbage_collection():
        start = min(_at_once(callers, work))
    in_time = sorted(itertools.chain.from_iterable(ended_and_taken))
    return [taken for _, taken in in_time], in_time[-1][0] - start


def _at_once(callers: Sequence[Iterator[Call]], work: Callable[[int, Iterator[Call]], Result]) -> list[Result]:
    """What ``work`` gives for each caller and its number, all begun together; a single one in this thread."""
    if len(callers) == 1:
        return [work(0, callers[0])]
    ready = threading.Barrier(len(callers))

    def begin(caller: int, calls: Iterator[Call]) -> Result:
        ready.wait()
        return work(caller, calls)

    with ThreadPoolExecutor(len(callers)) as pool:
        return list(pool.map(begin, range(len(callers)), callers))


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
