"""Who may write where: results on stdout, messages on stderr, the engines' chatter nowhere unless ``-v`` asks for it.

TensorFlow, OpenVINO and ONNX Runtime print from C++ and from Python. :func:`take_over` handles the first kind once per
process; :func:`engines` handles the second kind around a command's body.
"""

import contextlib
import faulthandler
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_STDOUT, _STDERR = 1, 2
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_CPP_MAX_VLOG_LEVEL": "0", "GLOG_minloglevel": "3", "GRPC_VERBOSITY": "NONE"}


def take_over(*, verbose: bool) -> None:
    """Keep the real stdout and stderr for this program's own words and point descriptors 1 and 2 elsewhere.

    Native code then writes into nothing, or with ``verbose`` to stderr, and so do child processes. It is never undone:
    what C buffered is flushed at exit, after the last word of Python. A crash in native code is still reported, by
    faulthandler on the real stderr.
    """
    drain = os.open(os.devnull, os.O_RDWR)
    while drain <= _STDERR:  # the caller closed a standard stream: no copy may land in its place
        drain = os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", _STDOUT), ("stderr", _STDERR)):
        own = _own_stream(getattr(sys, name), descriptor)
        setattr(sys, name, own)
        setattr(sys, f"__{name}__", own)  # rich measures the terminal with these
    faulthandler.enable(sys.stderr, all_threads=False)
    if verbose:
        drain = sys.stderr.fileno()
    os.dup2(drain, _STDOUT)
    os.dup2(drain, _STDERR)


def _own_stream(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed by the caller, as in `mbexport list >&-`
        return Path(os.devnull).open("w")
    stream.flush()
    return os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)


@contextlib.contextmanager
def engines(*, verbose: bool) -> Iterator[None]:
    """While engines run, print, warnings and logging go nowhere, or with ``verbose`` to stderr."""
    if verbose:
        with contextlib.redirect_stdout(sys.stderr), _logged():
            yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()):
        yield


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Mbexport's own log on stderr: what its child processes printed."""
    logger, handler = logging.getLogger("mbexport"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)


class _Nowhere(io.TextIOBase):
    """Never closed, because log handlers keep the stream that they saw first."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)
