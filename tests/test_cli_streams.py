"""Who writes where: one result on stdout, words on stderr, the engines' chatter nowhere; and how a command ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbexport_cli import signals
from mbexport_cli.screen import screen
from tests.tiny import tiny_artifact

FULL = Path("/dev/full")
CHATTER = """
import os, sys, warnings, logging, ctypes
import mbexport.validate as target
real = target.validate
def validate(*arguments, **named):
    os.write(1, b"CHATTER\\n"); os.write(2, b"CHATTER\\n")
    ctypes.CDLL(None).puts(b"CHATTER")
    print("CHATTER"); print("CHATTER", file=sys.stderr)
    warnings.warn("CHATTER"); logging.getLogger("engine").error("CHATTER")
    {then}
target.validate = validate
from mbexport_cli.__main__ import main
main()
"""


def chattering(then: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = CHATTER.format(then=then)
    return subprocess.run(
        [sys.executable, "-c", program, "validate", *arguments], check=False, capture_output=True, text=True
    )


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return str(tiny_artifact(tmp_path).path)


def test_chatter_goes_nowhere(tiny: str) -> None:
    done = chattering("return real(*arguments, **named)", tiny, "--json", "--runtime", "ort:cpu")
    assert done.stderr == ""
    assert json.loads(done.stdout)["passed"] is True
    assert done.returncode == 0


def test_verbose_sends_chatter_to_stderr(tiny: str) -> None:
    done = chattering("return real(*arguments, **named)", tiny, "--json", "--runtime", "ort:cpu", "-v")
    assert done.stderr.count("CHATTER") >= 7
    assert "CHATTER" not in done.stdout
    assert json.loads(done.stdout)["passed"] is True


def test_bug_is_told_in_two_lines(tiny: str) -> None:
    done = chattering("raise KeyError('two\\nlines')", tiny, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
    assert "KeyError" in done.stderr
    assert "-v" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_crash_of_an_engine_is_not_silent(tiny: str) -> None:
    done = chattering("ctypes.string_at(0)", tiny, "--json")
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt(tiny: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = CHATTER.format(then=f"open({str(ready)!r}, 'w').close(); import time; time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "validate", tiny], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_command_unwind_it(name: str, tiny: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    ready, unwound = tmp_path / "ready", tmp_path / "unwound"
    then = f"""
    try:
        open({str(ready)!r}, 'w').close(); import time; time.sleep(60)
    finally:
        open({str(unwound)!r}, 'w').close()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", CHATTER.format(then=then), "validate", tiny],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (128 + number, "", "")
    assert unwound.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_hangup_that_the_caller_ignores_stays_ignored(tiny: str) -> None:
    """As nohup has it."""
    then = "import signal; os.kill(os.getpid(), signal.SIGHUP); return real(*arguments, **named)"
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + CHATTER.format(then=then)
    done = subprocess.run(
        [sys.executable, "-c", program, "validate", tiny, "--runtime", "ort:cpu"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "passed" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="a shell")
@pytest.mark.parametrize("closing", ["| true", ">&-", "2>&-", ">&- 2>&-", "<&-"])
@pytest.mark.parametrize("arguments", ["list", "list --json", "--help"])
def test_closed_streams_are_no_error(arguments: str, closing: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m mbexport_cli {arguments} {closing}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if closing in {"2>&-", "<&-"}:
        assert "mobilenet_v3_small_1.0_224" in done.stdout or "Usage" in done.stdout


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_piped_output_has_no_colour_and_no_cut(tiny: str, columns: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mbexport_cli", "validate", tiny, "--runtime", "ort:cpu"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": columns},
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("ort:cpu")]
    assert [row[1:3] for row in rows] == [["parity", "f32"], ["production", "f32"]]
    assert [row[-1] for row in rows] == ["passed", "passed"]


@pytest.mark.skipif(not FULL.exists(), reason="Linux's device that is always full")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_full_disk_behind_stdout(form: list[str]) -> None:
    command = [sys.executable, "-m", "mbexport_cli", "list", *form]
    with FULL.open("w") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the result to stdout: No space left on device\n"


SWALLOWED = """
import os, signal, sys, time
from mbexport_cli import signals
signals.install()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    pass  # as an import that is interrupted may do
from mbexport_cli.__main__ import main
sys.argv = ["mbexport", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("arguments", [["list"], ["validate", "absent"]])
def test_interrupt_that_a_package_swallowed_still_counts(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWED, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


LOST = """
import os, signal, sys, time
class Lost:
    def find_spec(self, name, path=None, target=None):
        if name == "openvino":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                pass
            raise ImportError("initialization failed")
sys.meta_path.insert(0, Lost())
from mbexport_cli.__main__ import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt_that_an_engine_swallowed_ends_the_command_before_it_writes(tiny: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOST, "bench", tiny, "--budget", "15s", "--profiles", str(tmp_path / "profiles")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert list((tmp_path / "profiles").rglob("*.json")) == []


@pytest.mark.parametrize("verbose", [False, True])
def test_after_an_interrupt_the_next_step_ends_the_command(verbose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with screen(verbose=verbose) as own, own.progress() as progress:
        progress("one")
        monkeypatch.setattr(signals, "_struck", [signal.SIGINT])
        with pytest.raises(KeyboardInterrupt):
            progress("two", 0.5)
    with screen(verbose=verbose) as own, pytest.raises(KeyboardInterrupt), own.progress():
        pytest.fail("began another step")
