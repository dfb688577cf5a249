"""Signals end a command by an exception, so that nothing half-written stays.

Ctrl-C needs a memory as well: Python turns a KeyboardInterrupt that strikes while a package is imported into whatever
that package makes of it, such as an ImportError; the command would then go on and call the package missing.
"""

import signal
import sys
from types import FrameType

_ENDING = ("SIGTERM", "SIGHUP")
"""Windows has no SIGHUP."""
_struck: list[int] = []


def install() -> None:
    """Take over the signals that still mean what they do by default; what the caller ignores (nohup) stays ignored."""
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda got, _frame: sys.exit(128 + got))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def interrupted() -> bool:
    """Whether Ctrl-C was pressed, whatever became of the exception."""
    return bool(_struck)


def check() -> None:
    """Ends a command that goes on although Ctrl-C was pressed.

    Raises:
        KeyboardInterrupt: it was.
    """
    if interrupted():
        raise KeyboardInterrupt


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _struck.append(number)
    raise KeyboardInterrupt
