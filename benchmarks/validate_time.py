"""Time `mbexport validate`, and with `--explain`, from process start, on the artifacts that are given.

    python benchmarks/validate_time.py ARTIFACT... [--rounds 5]

Both CPU runtimes, parity and production. Prints the median, least and most seconds of each; the commands take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {"validate": [], "validate --explain": ["--explain"]}


def seconds(artifact: Path, options: list[str]) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "mbexport_cli", "validate", str(artifact), *options, "--json"]
    for target in ("ort:cpu", "openvino:cpu"):
        command += ["--runtime", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        sys.exit(done.stderr)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| artifact | command | median s | least | most |\n|---|---|---:|---:|---:|")
    for artifact in options.artifact:
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(options.rounds):
            for name, given in COMMANDS.items():
                times[name].append(seconds(artifact, given))
        for name, found in times.items():
            middle = statistics.median(found)
            print(f"| {artifact.name} | {name} | {middle:.2f} | {min(found):.2f} | {max(found):.2f} |", flush=True)


if __name__ == "__main__":
    main()
