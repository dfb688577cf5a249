"""The live line on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest

from mbexport_cli.screen import screen


def all_of(reader: int) -> bytes:
    """What a pseudo-terminal got, whose other end is closed: the kernel hands it on bit by bit."""
    found = b""
    with contextlib.suppress(OSError):  # Linux's end of a terminal
        while part := os.read(reader, 1 << 16):
            found += part
    return found


def test_what_engines_print_does_not_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty", reason="no pseudo-terminals there", exc_type=ImportError)
    monkeypatch.setenv("TERM", "xterm")
    reader, writer = pty.openpty()
    try:
        with os.fdopen(writer, "w", buffering=1) as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with screen(verbose=False) as own, own.progress() as progress:
                progress("measure tiny", 0.5)
                sys.stdout.write("chatter on stdout\n")
                sys.stderr.write("chatter on stderr\n")
                progress("measure tiny again", 0.6)
        seen = all_of(reader).decode()
    finally:
        os.close(reader)
    assert "measure tiny again" in seen
    assert "chatter" not in seen
