"""Processes of mbexport's own: a question, an answer, and no life of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from mbexport import child, errors

if TYPE_CHECKING:
    from pathlib import Path

CHILD = """
    import os, sys, time
    import msgspec
    from mbexport import child

    class Question(msgspec.Struct):
        file: str

    def work(question):
        with open(question.file, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)

    sys.exit(child.answer(Question, work))
"""
PARENT = """
    import sys
    import msgspec
    from mbexport import child

    class Question(msgspec.Struct):
        file: str

    child.ask([sys.executable, sys.argv[1]], Question(sys.argv[2]), Question, what="the process of this test")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a parent's number stays there")
def test_a_process_ends_with_its_killed_parent(tmp_path: Path) -> None:
    for name, text in (("child.py", CHILD), ("parent.py", PARENT)):
        (tmp_path / name).write_text(textwrap.dedent(text))
    told = tmp_path / "pid"
    with subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path / "child.py", told]) as parent:
        while not (told.exists() and told.read_text()):
            assert parent.poll() is None
            time.sleep(0.05)
        started = psutil.Process(int(told.read_text()))
        parent.kill()
    psutil.wait_procs([started], timeout=30)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE


def test_every_error_comes_back_as_itself() -> None:
    """Whatever its constructor takes."""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.MbexportError):
            said = msgspec.json.encode(child.Failure(error=name, message="why"))
            with pytest.raises(kind, match=r"^why$"):
                child._understood(said, child.Failure)


def test_a_servant_that_dies_before_it_is_asked_can_be_closed() -> None:
    servant = child.Servant((sys.executable, "-c", "raise SystemExit(3)"), "the process that ends")
    servant._process.wait()
    with pytest.raises(errors.ProcessError, match="the process that ends ended with exit code 3"):
        servant.ask(child.Failure(error="", message="x" * 10**6), child.Failure)
    servant.close()
