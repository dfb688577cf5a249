from __future__ import annotations

import itertools

import pytest

from mbexport import thresholds
from mbexport.bench.budget import Budget, plan_budget, replicates_for, reserved, seconds
from mbexport.bench.timing import time_calls
from mbexport.errors import InputError


@pytest.mark.parametrize(
    ("text", "wanted_s"), [("60s", 60), ("60", 60), ("5m", 300), ("2min", 120), ("1h", 3600), (" 1.5 H ", 5400)]
)
def test_times(text: str, wanted_s: float) -> None:
    assert seconds(text) == wanted_s


@pytest.mark.parametrize("text", ["", "0", "0s", "-5s", "nan", "inf", "5 parsecs", "1e3", "1:00", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="such as 60s, 5m or 1h"):
        seconds(text)


def test_small_budgets_take_fewer_processes_and_too_small_ones_are_refused() -> None:
    assert replicates_for(None, 1000) == thresholds.BENCH_REPLICATES
    assert replicates_for(3600, 10) == thresholds.BENCH_REPLICATES
    least_s = next(budget_s for budget_s in range(1, 1000) if _fits(budget_s))
    assert replicates_for(least_s, 10) == thresholds.BENCH_LEAST_REPLICATES
    with pytest.raises(InputError, match="1 s too small for 10 rows of 3 processes; give more, or fewer rows"):
        replicates_for(least_s - 1, 10)
    assert reserved(None, 10, 4) is None
    assert reserved(100, 10, 4) == 60


def _fits(budget_s: float) -> bool:
    try:
        return bool(replicates_for(budget_s, 10))
    except InputError:
        return False


@pytest.mark.parametrize("other_s", [0.1, 0.5, 2.0])
def test_the_whole_budget_is_spent_and_no_more(other_s: float) -> None:
    """Whatever a process takes besides measuring."""
    processes, total_s = 40, 200.0
    budget = Budget(total_s, processes, min_samples=138)
    passed_s = 0.0
    while budget.processes:
        limits = budget.limits()
        assert limits.min_time_s == limits.max_time_s
        assert limits.min_samples == 1
        budget.spent(limits.max_time_s + other_s, limits.max_time_s)
        passed_s += limits.max_time_s + other_s
    assert passed_s == pytest.approx(total_s, rel=1e-6)


def test_time_left_is_that_of_the_processes_so_far() -> None:
    budget = Budget(None, 10, min_samples=138)
    assert budget.left_s() is None
    assert (budget.limits().min_samples, budget.limits().max_time_s) == (138, thresholds.BENCH_MAX_TIME_S)
    budget.spent(3.0, 1.0)
    budget.spent(5.0, 1.0)
    assert budget.left_s() == pytest.approx(8 * 4.0)


def test_what_a_budget_buys() -> None:
    """60 s over 40 processes leave 1.5 s for each, of which a second is its start: 2.5 s of measuring for each row.

    MLPerf's rule asks for 662 samples for p99 and 64 for p90; of a median at least two of 11 lie above it in 99.4% of
    cases, of 10 in 98.9%.
    """
    plan = plan_budget(60.0, 60.0, 5, [[]] * 8)
    assert plan is not None
    assert (plan.budget_s, plan.rows, plan.processes_per_row, plan.processes) == (60.0, 8, 5, 40)
    assert plan.measuring_s == pytest.approx(0.5)
    ends_s = (plan.p50_up_to_s, plan.p90_up_to_s, plan.p99_up_to_s)
    assert ends_s == pytest.approx((2.5 / 11, 2.5 / 64, 2.5 / 662))


def test_callers_at_once_make_as_many_more_calls() -> None:
    alone, three = (plan_budget(60.0, 60.0, 5, [[]] * 8, callers) for callers in (1, 3))
    assert alone is not None
    assert three is not None
    assert three.measuring_s == alone.measuring_s
    assert three.p99_up_to_s == pytest.approx(3 * alone.p99_up_to_s)


def test_a_budget_goes_to_the_processes_that_are_still_to_run() -> None:
    """Of three rows one is finished; 26 s go to the 6 processes that the others still need."""
    finished, begun, untouched = [0.5] * 4, [0.5, 0.7], list[float]()
    plan = plan_budget(30.0, 26.0, 4, [finished, begun, untouched])
    assert plan is not None
    assert (plan.budget_s, plan.rows, plan.processes) == (30.0, 2, 6)
    assert plan.measuring_s == pytest.approx(26 / 6 - 1)
    least_s = 0.5 + 0.7 + 2 * (26 / 6 - 1)  # the row with the least time, old and new together
    assert plan.p99_up_to_s == pytest.approx(least_s / 662)
    assert plan_budget(30.0, 26.0, 4, [finished, finished]) is None


@pytest.mark.parametrize(("total_s", "kept"), [(60.0, 0), (60.0, 3), (9.0, 0)])
def test_what_is_said_is_what_the_first_process_is_told(total_s: float, kept: int) -> None:
    plan = plan_budget(total_s, total_s, 5, [[0.4] * kept, []])
    assert plan is not None
    limits = Budget(total_s, plan.processes, min_samples=138).limits()
    assert (limits.min_time_s, limits.max_time_s) == (plan.measuring_s, plan.measuring_s)


@pytest.mark.parametrize(("excess", "enough"), [(0.999, True), (1.01, False)])
def test_calls_up_to_the_bound_give_the_samples_that_p99_needs(excess: float, enough: bool) -> None:
    """Counted by the loop that measures, on a clock that only the calls move forward."""
    plan = plan_budget(60.0, 60.0, 5, [[]] * 8)
    assert plan is not None
    limits = Budget(60.0, plan.processes, min_samples=138).limits()
    now_ns, call_ns = 0, round(plan.p99_up_to_s * excess * 1e9)

    def call() -> None:
        nonlocal now_ns
        now_ns += call_ns

    samples = 0
    for _ in range(plan.processes_per_row):
        samples += len(time_calls(itertools.repeat(call), limits, lambda: now_ns)[0])
    assert (samples >= 662) == enough
