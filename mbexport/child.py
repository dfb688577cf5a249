"""Work in a fresh process of mbexport's own: a question on its stdin, the answer on its stdout, both JSON.

:func:`ask` and :func:`answer` are for one question; :class:`Servant` and :func:`serve` for many, one a line, where a
process has something to load first that all of them need.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
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
    return _understood(out, kind)


def answer(kind: type[Question], work: Callable[[Question], msgspec.Struct]) -> int:
    """The process's side: read a question, do the work, write the answer; the exit code.

    The real stdout is kept for the answer; what engines print there goes to stderr.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answer_file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        said = _said(work, msgspec.json.decode(sys.stdin.buffer.read(), type=kind))
    except KeyboardInterrupt:
        return _INTERRUPTED
    with answer_file:
        answer_file.write(said)
    return 0


def serve(kind: type[Question], work: Callable[[Question], msgspec.Struct]) -> int:
    """The process's side of a :class:`Servant`: as :func:`answer`, question after question, until stdin ends."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        for line in sys.stdin.buffer:
            answers.write(_said(work, msgspec.json.decode(line, type=kind)) + b"\n")
            answers.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _said(work: Callable[[Question], msgspec.Struct], question: Question) -> bytes:
    try:
        return msgspec.json.encode(work(question))
    except errors.MbexportError as error:
        return msgspec.json.encode(Failure(error=type(error).__name__, message=str(error)))


class Servant:
    """A process that answers one question after the other. Close it, or it stays as long as this process."""

    def __init__(self, command: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> None:
        """``what`` is the process in words, as for :func:`ask`."""
        self._what = what
        self._chatter = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._chatter, env={**os.environ, **(environment or {})}
        )

    def ask(self, question: msgspec.Struct, kind: type[Answer]) -> Answer:
        """Let it answer; raises as :func:`ask` does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise errors.ProcessError(_obituary(self._what, self._process.wait(), self._heard()))
        return _understood(line, kind)

    def close(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._chatter):
            with contextlib.suppress(OSError):  # what was not read any more cannot be flushed
                if stream is not None:
                    stream.close()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _heard(self) -> str:
        self._chatter.seek(0)
        return self._chatter.read().decode(errors="replace").strip()


def _understood(data: bytes, kind: type[Answer]) -> Answer:
    said: Answer | Failure = msgspec.json.decode(data, type=kind | Failure)
    if isinstance(said, Failure):
        mirrored: type[errors.MbexportError] = getattr(errors, said.error)
        raise mirrored.__new__(mirrored, said.message)  # some take other arguments than the message that came of them
    return said


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
