"""What a bench is refused, in words."""

from __future__ import annotations

import pytest

from mbexport.bench.plan import choose_threads
from mbexport.errors import InputError
from mbexport.profile import ThreadPlan


@pytest.mark.parametrize(
    ("most", "reasons", "message"),
    [
        (
            1,
            ["1 physical core among the 1 CPU that this process may use"],
            "threads must be 1 here, not 99: there is 1 physical core among the 1 CPU that this process may use",
        ),
        (
            4,
            ["2 physical cores", "a cgroup quota of 4 CPUs"],
            "threads must be 1 to 4 here, not 99: there are 2 physical cores and a cgroup quota of 4 CPUs",
        ),
        (16, ["12 physical cores"], "threads must be 1 to 16 here, not 99: there are 12 physical cores"),
    ],
)
def test_threads_beyond_the_machine_are_refused_in_good_english(most: int, reasons: list[str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        choose_threads(99, ThreadPlan(threads=1, most=most, reasons=reasons))
    assert str(refused.value) == message
