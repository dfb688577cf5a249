"""A bench that is killed at random moments: nothing is lost or damaged, and nothing finished is measured again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mbexport import thresholds
from mbexport.profiles import read_folder
from tests.tiny import tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 20


def journalled(folder: Path) -> set[str]:
    """The samples of each process whose line was written whole."""
    found = set()
    for path in folder.glob("*/.unfinished/*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                found.add(json.loads(line)["answer"]["replicate"]["samples"])
            except json.JSONDecodeError:
                continue
    return found


def stored(folder: Path) -> set[str]:
    for machine in folder.iterdir():
        read_folder(machine)  # none is damaged
    return {
        replicate["samples"]
        for path in folder.glob("*/*.json")
        for row in json.loads(path.read_text())["measurements"]
        for replicate in row["replicates"]
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_bench_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    artifact, folder = tiny_artifact(tmp_path).path, tmp_path / "profiles"
    command = [sys.executable, "-m", "mbexport_cli", "bench", str(artifact), "--profiles", str(folder)]
    command += ["--runtime", "ort:cpu", "--threads", "1", "--budget", "60s"]
    moments = random.Random(0)
    seen: set[str] = set()
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            time.sleep(moments.uniform(0.2, 6))
            os.killpg(process.pid, signal.SIGKILL)
        if folder.exists():
            now = journalled(folder) | stored(folder)
            assert seen <= now
            seen = now
    assert subprocess.run(command, check=True, stdout=subprocess.DEVNULL).returncode == 0
    last = stored(folder)
    assert seen <= last
    assert len(last) == 2 * thresholds.BENCH_REPLICATES
    assert not list(folder.glob("*/.unfinished"))
