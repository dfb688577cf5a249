from __future__ import annotations

import itertools

import pytest

from mbexport import thresholds
from mbexport.bench.budget import (
    Budget,
    BudgetPlan,
    plan_budget,
    planned_limits,
    replicates_for,
    reserved,
    seconds,
    uneven_reason,
)
from mbexport.bench.timing import Limits, time_calls
from mbexport.errors import InputError


@pytest.mark.parametrize(
    ("text", "wanted_s"),
    [("60s", 60), ("60", 60), ("5m", 300), ("2min", 120), ("1h", 3600), (" 1.5 H ", 5400), ("24h", 86400)],
)
def test_times(text: str, wanted_s: float) -> None:
    assert seconds(text) == wanted_s


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5s", "nan", "inf", "5 parsecs", "1e3", "1:00", "9" * 400, "25h", "86401"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="such as 60s, 5m or 1h, and at most 24h, not"):
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


def spend(total_s: float, others_s: list[float]) -> list[float]:
    """How long each process may measure that takes so much besides."""
    budget = Budget(total_s, len(others_s), planned_limits(total_s, 1, len(others_s)))
    times_s = []
    for other_s in others_s:
        limits = budget.limits()
        assert limits.min_time_s == limits.max_time_s
        assert limits.min_samples == 1
        budget.spent(limits.max_time_s + other_s, limits.max_time_s)
        times_s.append(limits.max_time_s)
    return times_s


@pytest.mark.parametrize(("other_s", "spent_share"), [(1.0, 1.0), (2.0, 1.0), (4.5, 1.0), (0.5, 0.9), (0.0, 0.8)])
def test_the_whole_budget_is_spent_and_no_more(other_s: float, spent_share: float) -> None:
    """Of 5 s for each process one is planned for its start; what a sooner one saves is not measured away."""
    times_s = spend(200.0, [other_s] * 40)
    assert sum(times_s) + 40 * other_s == pytest.approx(200 * spent_share, rel=1e-6)


def test_time_that_early_processes_save_is_left_for_those_that_start_slowly() -> None:
    """The machine gets busy after two processes: the others measure as long as they, whose time is not used up."""
    assert spend(15.0, [0.1, 0.1, 1.5, 1.5, 1.5]) == pytest.approx([2.0] * 5)
    assert spend(15.0, [0.1] * 5) == pytest.approx([2.0] * 5)


@pytest.mark.parametrize(
    ("times_s", "reason"),
    [
        ([1.0], None),
        ([1.0, 0.51, 0.8], None),
        ([0.49, 1.0, 1.0], "1 of 3 processes measured for less than half as long as the longest (0.49 s against 1 s)"),
        ([2.6, 1.1, 0.1], "2 of 3 processes measured for less than half as long as the longest (0.1 s against 2.6 s)"),
    ],
)
def test_processes_that_measured_for_unequal_times(times_s: list[float], reason: str | None) -> None:
    assert uneven_reason(times_s) == reason


def test_time_left_is_that_of_the_processes_so_far() -> None:
    budget = Budget(None, 10, Limits(138))
    assert budget.left_s() is None
    assert (budget.limits().min_samples, budget.limits().max_time_s) == (138, thresholds.BENCH_MAX_TIME_S)
    budget.spent(3.0, 1.0)
    budget.spent(5.0, 1.0)
    assert budget.left_s() == pytest.approx(8 * 4.0)


def plan_of(budget_s: float, kept_s: list[list[float]], callers: int = 1) -> BudgetPlan | None:
    """Of five processes a row, where no cold starts are asked for."""
    return plan_budget(budget_s, planned_limits(budget_s, len(kept_s), 5).max_time_s, 5, kept_s, callers)


def test_what_a_budget_buys() -> None:
    """60 s over 40 processes leave 1.5 s for each, of which a second is its start: 2.5 s of measuring for each row.

    MLPerf's rule asks for 662 samples for p99 and 64 for p90; of a median at least two of 11 lie above it in 99.4% of
    cases, of 10 in 98.9%.
    """
    plan = plan_of(60.0, [[]] * 8)
    assert plan is not None
    assert (plan.budget_s, plan.rows, plan.processes_per_row, plan.processes) == (60.0, 8, 5, 40)
    assert plan.measuring_s == pytest.approx(0.5)
    ends_s = (plan.p50_up_to_s, plan.p90_up_to_s, plan.p99_up_to_s)
    assert ends_s == pytest.approx((2.5 / 11, 2.5 / 64, 2.5 / 662))


def test_callers_at_once_make_as_many_more_calls() -> None:
    alone, three = (plan_of(60.0, [[]] * 8, callers) for callers in (1, 3))
    assert alone is not None
    assert three is not None
    assert three.measuring_s == alone.measuring_s
    assert three.p99_up_to_s == pytest.approx(3 * alone.p99_up_to_s)


def test_a_budget_goes_to_the_processes_that_are_still_to_run() -> None:
    """Of three rows one is finished. The 6 processes that the others still need measure no longer than those did."""
    finished, begun, untouched = [1.25] * 4, [1.3, 1.2], list[float]()
    assert planned_limits(27.0, 3, 4).max_time_s == pytest.approx(27 / 12 - 1)
    plan = plan_budget(30.0, 1.25, 4, [finished, begun, untouched])
    assert plan is not None
    assert (plan.budget_s, plan.rows, plan.processes) == (30.0, 2, 6)
    assert plan.measuring_s == 1.25
    least_s = 1.3 + 1.2 + 2 * 1.25  # the row with the least time, old and new together
    assert plan.p99_up_to_s == pytest.approx(least_s / 662)
    assert plan_budget(30.0, 1.25, 4, [finished, finished]) is None


@pytest.mark.parametrize(("total_s", "kept"), [(60.0, 0), (60.0, 3), (9.0, 0)])
def test_what_is_said_is_what_the_first_process_is_told(total_s: float, kept: int) -> None:
    plan = plan_of(total_s, [[0.4] * kept, []])
    assert plan is not None
    limits = Budget(total_s, plan.processes, planned_limits(total_s, 2, 5)).limits()
    assert (limits.min_time_s, limits.max_time_s) == (plan.measuring_s, plan.measuring_s)


@pytest.mark.parametrize(("excess", "enough"), [(0.999, True), (1.01, False)])
def test_calls_up_to_the_bound_give_the_samples_that_p99_needs(excess: float, enough: bool) -> None:
    """Counted by the loop that measures, on a clock that only the calls move forward."""
    plan = plan_of(60.0, [[]] * 8)
    assert plan is not None
    limits = Budget(60.0, plan.processes, planned_limits(60.0, 8, 5)).limits()
    now_ns, call_ns = 0, round(plan.p99_up_to_s * excess * 1e9)

    def call() -> None:
        nonlocal now_ns
        now_ns += call_ns

    samples = 0
    for _ in range(plan.processes_per_row):
        samples += len(time_calls(itertools.repeat(call), limits, lambda: now_ns)[0])
    assert (samples >= 662) == enough
