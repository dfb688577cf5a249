"""Work in a fresh process of mbexport's own: a question on its stdin, the answer on its stdout, both JSON."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mbexport import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_INTERRUPTED = 130
_ORPHAN_CHECK_S = 0.5

Question = TypeVar("Question", bound=msgspec.Struct)
Answer = TypeVar("Answer", bound=msgspec.Struct)

_log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An error of the tree in ``mbexport.errors``, to be raised again by the parent."""

    error: str
    message: str


def python_module(name: str) -> tuple[str, ...]:
    """The command that runs a module. -P: a folder called numpy in the working folder must not be taken for NumPy."""
    return sys.executable, "-P", "-m", name


def ask(
    command: Sequence[str],
    question: msgspec.Struct,
    kind: type[Answer],
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Let a fresh process answer. It does not outlive this call, not even when the call is interrupted.

    Args:
        command: what to run; its module calls :func:`answer`.
        question: sent as JSON.
        kind: the answer's type, a tagged struct.
        what: the process in words, for the message when it dies: "the process that ...".
        environment: variables that differ from this process's own.

    Raises:
        MbexportError: the same error that the process met.
        ProcessError: the process died.
    """
    returncode, out, err = _run(command, msgspec.json.encode(question), {**os.environ, **(environment or {})})
    chatter = err.decode(errors="replace").strip()
    if chatter:
        _log.debug("%s: %s", what, chatter)
    if returncode:
        raise errors.ProcessError(_obituary(what, returncode, chatter))
    said: Answer | Failure = msgspec.json.decode(out, type=kind | Failure)
    if isinstance(said, Failure):
        mirrored: type[errors.MbexportError] = getattr(errors, said.error)
        raise mirrored(said.message)
    return said


def answer(kind: type[Question], work: Callable[[Question], msgspec.Struct]) -> int:
    """The process's side: read a question, do the work, write the answer; the exit code.

    The real stdout is kept for the answer; what engines print there goes to stderr.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answer_file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    said: msgspec.Struct
    try:
        said = work(msgspec.json.decode(sys.stdin.buffer.read(), type=kind))
    except errors.MbexportError as error:
        said = Failure(error=type(error).__name__, message=str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    with answer_file:
        answer_file.write(msgspec.json.encode(said))
    return 0


def _end_with_parent(parent: int) -> None:
    """A parent that was killed cannot end its process, which would go on beside the next measurement.

    Where the parent's number stays after its end, as on Windows, the work is finished and thrown away.
    """
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK_S)
    os._exit(_INTERRUPTED)


def _run(command: Sequence[str], question: bytes, environment: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        try:
            out, err = process.communicate(question)
        except BaseException:
            # subprocess.run would kill it too, but would not wait for it to be gone.
            process.kill()
            process.wait()
            raise
    return process.returncode, out, err


def _obituary(what: str, returncode: int, chatter: str) -> str:
    if returncode < 0:
        cause = f"was killed by {signal.Signals(-returncode).name}"
        if -returncode == signal.SIGKILL:
            cause += " (out of memory?)"
    else:
        cause = f"ended with exit code {returncode}"
    last = chatter.rpartition("\n")[2]
    return f"{what} {cause}" + (f": {last}" if last else "")
