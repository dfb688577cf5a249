from __future__ import annotations

import functools
import gc
import itertools
from typing import TYPE_CHECKING

import pytest

from mbexport import thresholds
from mbexport.bench.timing import SECOND_NS, Limits, time_calls, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MS = 1_000_000


class FakeClock:
    """Time passes in calls alone: each takes the next of ``durations_ns``."""

    def __init__(self) -> None:
        self.now_ns = 10**15
        self.runs = 0

    def __call__(self) -> int:
        return self.now_ns

    def calls(self, durations_ns: Iterable[int]) -> Iterator[Callable[[], object]]:
        for duration_ns in durations_ns:
            yield functools.partial(self._pass, duration_ns)

    def _pass(self, duration_ns: int) -> None:
        self.now_ns += duration_ns
        self.runs += 1


def test_samples_are_the_calls_own_times_in_order() -> None:
    clock = FakeClock()
    samples, wall_ns = time_calls(clock.calls([5, 7, 11, 13]), Limits(min_samples=3, min_time_s=0), clock)
    assert samples == [5, 7, 11]
    assert wall_ns == 23


@pytest.mark.parametrize(
    ("duration_ns", "limits", "count"),
    [
        (MS, Limits(min_samples=230), 600),  # fast: the least time decides
        (100 * MS, Limits(min_samples=230), 230),  # slow: the least count decides
        (SECOND_NS, Limits(min_samples=230), 30),  # very slow: the most time ends it
        (60 * SECOND_NS, Limits(min_samples=230), 1),
    ],
)
def test_loop_ends_when_both_minima_are_met_or_time_is_up(duration_ns: int, limits: Limits, count: int) -> None:
    clock = FakeClock()
    samples, wall_ns = time_calls(clock.calls(itertools.repeat(duration_ns)), limits, clock)
    assert len(samples) == clock.runs == count
    assert wall_ns == count * duration_ns


def test_garbage_collector_rests_in_the_loop_and_works_after_it() -> None:
    states: list[bool] = []
    clock = FakeClock()

    def fail() -> None:
        states.append(gc.isenabled())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time_calls(iter([fail]), Limits(min_samples=1), clock)
    assert states == [False]
    assert gc.isenabled()


def test_warm_up_waits_for_two_equal_windows() -> None:
    clock = FakeClock()
    window = thresholds.WARMUP_WINDOW_RUNS
    falling = [30 * MS] * window + [20 * MS] * window + [10 * MS] * window
    assert warm_up(clock.calls([*falling, *[10 * MS] * 1000]), clock) == (4 * window, True)
    assert clock.runs == 4 * window


def test_warm_up_takes_medians_so_that_one_stall_does_not_count() -> None:
    clock = FakeClock()
    durations = [MS] * 7 + [50 * MS] + [MS] * 92
    assert warm_up(clock.calls(durations), clock) == (2 * thresholds.WARMUP_WINDOW_RUNS, True)


def test_warm_up_that_never_settles_ends_and_says_so() -> None:
    clock = FakeClock()
    start_ns = clock()
    growing = (int(MS * 1.02**run) for run in itertools.count())
    runs, settled = warm_up(clock.calls(growing), clock)
    assert not settled
    elapsed_s = (clock() - start_ns) / SECOND_NS
    assert thresholds.WARMUP_MAX_TIME_S <= elapsed_s < 1.03 * thresholds.WARMUP_MAX_TIME_S
    assert runs == clock.runs


def test_warm_up_of_a_slow_network_makes_its_fewest_runs() -> None:
    clock = FakeClock()
    assert warm_up(clock.calls(itertools.repeat(9 * SECOND_NS)), clock) == (thresholds.WARMUP_MIN_RUNS, False)
