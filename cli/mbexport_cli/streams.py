"""Who may write where: results on stdout, messages on stderr, the engines' chatter nowhere unless ``-v`` asks for it.

TensorFlow, OpenVINO and ONNX Runtime print from C++ and from Python. :func:`take_over` handles the first kind once per
process; :func:`engines` handles the second kind around a command's body.
"""

import contextlib
import faulthandler
import io
import os
import sys
from collections.abc import Iterator

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_CPP_MAX_VLOG_LEVEL": "0", "GLOG_minloglevel": "3", "GRPC_VERBOSITY": "NONE"}


def take_over(*, verbose: bool) -> None:
    """Keep the real stdout and stderr for this program's own words and point descriptors 1 and 2 elsewhere.

    Native code then writes into nothing, or with ``verbose`` to stderr, and so do child processes. It is never undone:
    what C buffered is flushed at exit, after the last word of Python. A crash in native code is still reported, by
    faulthandler on the real stderr.
    """
    own = {}
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as in `mbexport list >&-`
            continue
        stream.flush()
        own[name] = os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)
        setattr(sys, name, own[name])
        setattr(sys, f"__{name}__", own[name])  # rich measures the terminal with these
    if "stderr" in own:
        faulthandler.enable(own["stderr"], all_threads=False)
    drain = own["stderr"].fileno() if verbose and "stderr" in own else os.open(os.devnull, os.O_WRONLY)
    os.dup2(drain, 1)
    os.dup2(drain, 2)


@contextlib.contextmanager
def engines(*, verbose: bool) -> Iterator[None]:
    """While engines run, print, warnings and logging go nowhere, or with ``verbose`` to stderr."""
    if verbose:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()):
        yield


class _Nowhere(io.TextIOBase):
    """Never closed, because log handlers keep the stream that they saw first."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)
