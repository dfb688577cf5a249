"""Sweeps and bundles: seconds a cell, memory of a worker, two cluster workers against one, seconds of `verify`.

    python benchmarks/sweep.py [--part cold|cluster|verify]... [--json FILE]

24 float32 networks (Small and Large, alpha 0.75 and 1.0, 96 to 224 px) are built and validated from an empty cache, and
again from it. Run with nothing else running. Exits 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import distributed
import psutil

from mbexport.spec import ModelSpec
from mbexport.sweep.cells import Cell
from mbexport.sweep.cluster import cluster
from mbexport.sweep.run import Settings, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

MBEXPORT = [sys.executable, "-P", "-m", "mbexport_cli"]
GRID = ["--variant", "small,large", "--alpha", "0.75,1.0", "--resolution", "96,128,160,176,192,224"]
CELLS = 24
SOME = [
    ModelSpec(variant="small", alpha=alpha, height=side, width=side)
    for alpha, side in itertools.product((0.5, 0.75, 1.0, 1.25), (128, 160, 192))
]
WARM = [ModelSpec(variant="v2", alpha=0.35, height=side, width=side) for side in (96, 128, 160, 192)]
TARGETS = ["ort:cpu", "openvino:cpu"]
PORT_WAIT_S = 30.0
ROUNDS = 5
BARS: dict[str, tuple[float, str]] = {
    "cold_s": (2.6, "s a cell from a cold cache, at most"),
    "cached_s": (0.1, "s a cell from the cache, at most"),
    "worker_gb": (2.5, "GB resident in a worker, at most"),
    "two_over_one": (1.7, "x the cells a minute of two cluster workers over one, at least"),
    "verify_s": (3.0, "s to verify a bundle, at most"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=["cold", "cluster", "verify"], action="append", help="all by default")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    found: dict[str, float] = {}
    for part in options.part or ["cold", "cluster", "verify"]:
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
            found |= {"cold": cold, "cluster": clustered, "verify": verified}[part](Path(folder))
    names = ("tensorflow", "onnxruntime-gpu", "openvino", "distributed")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}")
    print(", ".join(f"{name} {version(name)}" for name in names))
    missed = False
    for name, value in found.items():
        bar, text = BARS[name]
        met = value >= bar if name == "two_over_one" else value <= bar
        missed |= not met
        print(f"{value:7.3f}  {text} {bar:g}: {'met' if met else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    sys.exit(missed)


def cold(folder: Path) -> dict[str, float]:
    peaks: list[int] = [0]
    first_s = _sweep(folder, GRID, peaks)
    return {"cold_s": first_s / CELLS, "cached_s": _sweep(folder, GRID) / CELLS, "worker_gb": max(peaks) / 1e9}


def verified(folder: Path) -> dict[str, float]:
    _run(folder, "build", "--variant", "large")
    _run(folder, "bundle", "artifacts/mobilenet_v3_large_1.0_224", "-o", "large.zip")
    return {"verify_s": min(_run(folder, "verify", "large.zip") for _ in range(5))}


def clustered(folder: Path) -> dict[str, float]:
    """The median of interleaved rounds, TensorFlow loaded before; other seeds, so that nothing is cached."""
    ratios = []
    with _workers(folder / "1", 1) as one, _workers(folder / "2", 2) as two:
        for address in (one, two):
            _taken_s(address, folder, WARM, 0)
        for seed in range(1, ROUNDS + 1):
            taken_s = [_taken_s(address, folder, SOME, seed) for address in (one, two)]
            ratios.append(taken_s[0] / taken_s[1])
    print("rounds:", " ".join(f"{ratio:.2f}" for ratio in ratios))
    return {"two_over_one": statistics.median(ratios)}


def _taken_s(address: str, folder: Path, specs: list[ModelSpec], seed: int) -> float:
    settings = Settings(out=folder / "artifacts", cache=folder / "cache", targets=TARGETS, workers=1, threads=2)
    with cluster(address) as crew:
        start = time.perf_counter()
        assert sweep([Cell(spec=spec, seed=seed) for spec in specs], settings, crew=crew).passed
        return time.perf_counter() - start


def _sweep(folder: Path, options: list[str], peaks: list[int] | None = None) -> float:
    if peaks is None:
        return _run(folder, "sweep", *options, "--no-bench")
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, done), daemon=True)
    watcher.start()
    taken_s = _run(folder, "sweep", *options, "--no-bench")
    done.set()
    watcher.join()
    return taken_s


def _watch(peaks: list[int], done: threading.Event) -> None:
    while not done.wait(0.2):
        for process in psutil.Process().children(recursive=True):
            try:
                if "mbexport.sweep.worker" in process.cmdline():
                    peaks.append(process.memory_info().rss)
            except psutil.Error:  # it has just ended
                continue


def _run(folder: Path, *arguments: str) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "MBEXPORT_CACHE": str(folder / "cache")}
    subprocess.run([*MBEXPORT, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@contextmanager
def _workers(folder: Path, count: int) -> Iterator[str]:
    """A scheduler with so many workers, each on a CPU of its own."""
    folder.mkdir()
    told = folder / "scheduler.json"
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "MBEXPORT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    processes = [
        subprocess.Popen([*command, "--no-dashboard", "--scheduler-file", str(told)], stdout=quiet, stderr=quiet)
    ]
    try:
        deadline = time.monotonic() + PORT_WAIT_S
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        address = str(json.loads(told.read_text())["address"])
        for number in range(count):
            worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
            worker += ["--no-dashboard", "--local-directory", str(folder / f"w{number}")]
            pinned = partial(os.sched_setaffinity, 0, {number})  # before it has threads, which would keep their own
            processes.append(
                subprocess.Popen(worker, stdout=quiet, stderr=quiet, env=environment, preexec_fn=pinned)  # noqa: PLW1509
            )
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=PORT_WAIT_S)
        yield address
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
