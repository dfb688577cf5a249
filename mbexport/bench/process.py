"""The parent's side of a measuring process."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from mbexport import errors
from mbexport.bench.plan import WorkerAnswer, WorkerFailure, WorkerPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

# -P: a folder called numpy in the user's working folder must not be taken for NumPy.
COMMAND = (sys.executable, "-P", "-m", "mbexport.bench.worker")

_log = logging.getLogger(__name__)


def run_worker(plan: WorkerPlan, command: Sequence[str] = COMMAND) -> WorkerAnswer:
    """Measure in a fresh process, which does not outlive this call, not even when it is interrupted.

    Raises:
        MbexportError: the same error that the process met.
        MeasuringError: the process died.
    """
    returncode, out, err = _run(command, msgspec.json.encode(plan))
    chatter = err.decode(errors="replace").strip()
    if chatter:
        _log.debug("%s: %s", plan.target, chatter)
    if returncode:
        raise errors.MeasuringError(_obituary(plan, returncode, chatter))
    answer = msgspec.json.decode(out, type=WorkerAnswer | WorkerFailure)
    if isinstance(answer, WorkerFailure):
        kind: type[errors.MbexportError] = getattr(errors, answer.error)
        raise kind(answer.message)
    return answer


def _run(command: Sequence[str], plan: bytes) -> tuple[int, bytes, bytes]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = process.communicate(plan)
        except BaseException:
            # subprocess.run would kill it too, but would not wait for it to be gone.
            process.kill()
            process.wait()
            raise
    return process.returncode, out, err


def _obituary(plan: WorkerPlan, returncode: int, chatter: str) -> str:
    if returncode < 0:
        cause = f"was killed by {signal.Signals(-returncode).name}"
        if -returncode == signal.SIGKILL:
            cause += " (out of memory?)"
    else:
        cause = f"ended with exit code {returncode}"
    last = chatter.rpartition("\n")[2]
    return f"the process that measured {plan.target} ({plan.mode}) {cause}" + (f": {last}" if last else "")
