"""The parent's side of a measuring process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mbexport import child
from mbexport.bench.plan import ColdAnswer, ColdPlan, WorkerAnswer, WorkerPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.profile import ColdStart

Plan = TypeVar("Plan", WorkerPlan, ColdPlan)

COMMAND = child.python_module("mbexport.bench.worker")
COLD_COMMAND = child.python_module("mbexport.bench.cold")


def run_worker(plan: WorkerPlan, command: Sequence[str] = COMMAND) -> WorkerAnswer:
    """Measure in a fresh process, which does not outlive this call, not even when it is interrupted.

    Raises:
        MbexportError: the same error that the process met.
        ProcessError: the process died.
    """
    what = f"the process that measured {plan.cell.target} ({plan.cell.mode})"
    return child.ask(command, _spawned(plan), WorkerAnswer, what=what)


def run_cold(plan: ColdPlan, command: Sequence[str] = COLD_COMMAND) -> ColdStart:
    """Start a fresh process, let it answer once, and say how long that took. Raises as :func:`run_worker` does."""
    what = f"the process that started {plan.cell.target} ({plan.cell.mode})"
    return child.ask(command, _spawned(plan), ColdAnswer, what=what).start


def _spawned(plan: Plan) -> Plan:
    """All processes of a machine read one monotonic clock."""
    return msgspec.structs.replace(plan, spawned_ns=time.monotonic_ns())
