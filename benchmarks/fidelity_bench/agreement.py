"""Whether the p50 of a measuring process is that of OpenVINO's benchmark_app and of a bare loop, in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from scipy.stats import bootstrap

from mbexport.bench.plan import Cell, WorkerPlan
from mbexport.bench.process import run_worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.artifact import Artifact

BAR = 0.03
ENGINES = ("ort", "openvino")
_BARE = Path(__file__).parent / "bare.py"


class Agreement(msgspec.Struct, frozen=True):
    """One cell on one engine: medians in seconds, a round each."""

    cell: str
    engine: str
    ours_s: list[float]
    bare_s: list[float]
    app_s: list[float]

    def off_by(self, theirs_s: Sequence[float]) -> float:
        """Median over the rounds of ours over theirs, less 1: what drifts in the machine drops out of a round."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.ours_s, theirs_s, strict=True)) - 1

    def interval(self, theirs_s: Sequence[float]) -> tuple[float, float]:
        """95% percentile bootstrap of that median."""
        ratios = [ours / theirs - 1 for ours, theirs in zip(self.ours_s, theirs_s, strict=True)]
        found = bootstrap((ratios,), statistics.median, method="percentile", vectorized=False, rng=0, n_resamples=2000)
        return found.confidence_interval.low, found.confidence_interval.high


def measure(artifact: Artifact, engine: str, rounds: int, seconds: float) -> Agreement:
    """Fresh processes in turns, each round in another order."""
    model, side = str(artifact.model_path(f"{engine}:cpu")), artifact.manifest.input.shape[1] or 224
    programs = {"ours": lambda: _ours(artifact, engine, seconds), "bare": lambda: _bare(engine, model, seconds, side)}
    if engine == "openvino":
        programs["app"] = lambda: _app(model, seconds, side)
    found: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds):
        names = list(programs)
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            found[name].append(programs[name]())
    return Agreement(artifact.manifest.slug, engine, found["ours"], found["bare"], found.get("app", []))


def page(found: Sequence[Agreement]) -> Iterator[str]:
    yield "| network | engine | p50 ms | over a bare loop | over benchmark_app |"
    yield "|---|---|---:|---:|---:|"
    for one in found:
        p50_ms = statistics.median(one.ours_s) * 1e3
        yield f"| {one.cell} | {one.engine} | {p50_ms:.3f} | {_off(one, one.bare_s)} | {_off(one, one.app_s)} |"


def _off(one: Agreement, theirs_s: Sequence[float]) -> str:
    if not theirs_s:
        return "-"
    low, high = one.interval(theirs_s)
    return f"{one.off_by(theirs_s):+.1%} [{low:+.1%}, {high:+.1%}]"


def met(found: Sequence[Agreement]) -> bool:
    return all(abs(one.off_by(theirs)) <= BAR for one in found for theirs in (one.bare_s, one.app_s) if theirs)


def _ours(artifact: Artifact, engine: str, seconds: float) -> float:
    cell = Cell(
        artifact=str(artifact.path.absolute()),
        sha256=artifact.sha256,
        target=f"{engine}:cpu",
        mode="parity",
        threads=1,
        batch=1,
    )
    answer = run_worker(WorkerPlan(cell=cell, min_samples=1, min_time_s=seconds, max_time_s=seconds))
    return statistics.median(answer.replicate.samples_ns) * 1e-9


def _bare(engine: str, model: str, seconds: float, side: int) -> float:
    command = [sys.executable, str(_BARE), engine, model, str(seconds), str(side)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _app(model: str, seconds: float, side: int) -> float:
    """``-hint none`` lets the threads be set; the engine's default is then the latency hint, as its log says.

    It tells the median with two decimals of a millisecond.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(Path(sys.executable).parent / "benchmark_app"), "-m", model, "-d", "CPU", "-api", "sync"),
            *("-hint", "none", "-nthreads", "1", "-nstreams", "1", "-nireq", "1", "-infer_precision", "f32"),
            *("-t", str(max(1, round(seconds))), "-shape", f"[1,{side},{side},3]"),
            *("-json_stats", "-report_type", "no_counters", "-report_folder", folder),
        ]
        subprocess.run(command, check=True, capture_output=True)
        report = json.loads((Path(folder) / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"]) * 1e-3
