from __future__ import annotations

import pytest

from mbexport import thresholds
from mbexport.bench.budget import Budget, replicates_for, reserved, seconds
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
