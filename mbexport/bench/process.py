"""The parent's side of a measuring process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import child
from mbexport.bench.plan import WorkerAnswer, WorkerPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = child.python_module("mbexport.bench.worker")


def run_worker(plan: WorkerPlan, command: Sequence[str] = COMMAND) -> WorkerAnswer:
    """Measure in a fresh process, which does not outlive this call, not even when it is interrupted.

    Raises:
        MbexportError: the same error that the process met.
        ProcessError: the process died.
    """
    return child.ask(command, plan, WorkerAnswer, what=f"the process that measured {plan.target} ({plan.mode})")
