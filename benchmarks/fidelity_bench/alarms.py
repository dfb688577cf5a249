"""How often ``profile diff`` sees a change where nothing changed, and how often it sees a known slowdown.

Runs follow each other; in each, ONNX Runtime and its doubles that are a tenth and a fifth slower are measured as rows
of one bench. Each run is compared with the one before it.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fidelity_bench import slower
from fidelity_bench.slower import SHARES, register
from mbexport import serde
from mbexport.analysis.change import change_of
from mbexport.artifact import MANIFEST, read_artifact
from mbexport.bench import Settings, bench
from mbexport.bench import run as bench_run
from mbexport.bench.process import run_worker
from mbexport.bench.statistics import median
from mbexport.profiles import read_profile
from mbexport.thresholds import DIFF_ABOVE_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.artifact import Artifact

TARGETS = ["ort:cpu", *(f"{name}:cpu" for name in SHARES)]
BARS = {"ort:cpu": 0.01, "slow10:cpu": 0.95, "slow20:cpu": 1.0}
_WORKER = (sys.executable, str(Path(slower.__file__)))


class Run(msgspec.Struct, frozen=True):
    """The processes' medians of one bench in seconds, by target."""

    p50s_s: dict[str, list[float]]


def measure(artifact: Artifact, threads: int, folder: Path) -> Run:
    """One bench with its usual settings, parity."""
    register()
    bench_run.run_worker = partial(run_worker, command=_WORKER)  # type: ignore[attr-defined]
    settings = Settings(threads=[threads], modes=["parity"])
    report = bench([_for_doubles(artifact, folder / "artifact")], TARGETS, settings, profiles=folder / "profiles")
    assert report.profile is not None, report.failed
    rows = read_profile(Path(report.profile)).measurements
    return Run({row.runtime: [median(one.samples_ns) * 1e-9 for one in row.replicates] for row in rows})


def _for_doubles(artifact: Artifact, folder: Path) -> Artifact:
    """A copy whose manifest names ONNX Runtime's file for its doubles too."""
    if not folder.exists():
        shutil.copytree(artifact.path, folder)
        models = artifact.manifest.models | dict.fromkeys(SHARES, artifact.manifest.models["ort"])
        manifest = msgspec.structs.replace(artifact.manifest, models=models)
        (folder / MANIFEST).write_bytes(serde.json_bytes(manifest))
    return read_artifact(folder)


def verdicts(runs: Sequence[Run], target: str) -> list[str]:
    """Of each run's ``target`` against the plain engine in the run before."""
    return [
        change_of(before.p50s_s["ort:cpu"], after.p50s_s[target], DIFF_ABOVE_SHARE).verdict
        for before, after in pairwise(runs)
    ]


def page(runs: Sequence[Run]) -> Iterator[str]:
    yield "| B is | pairs | slower | faster | same | too noisy to tell | bar |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for target, bar in BARS.items():
        found = verdicts(runs, target)
        counts = [found.count(word) for word in ("slower", "faster", "same", "too noisy to tell")]
        what = "the same" if target == "ort:cpu" else f"{SHARES[target.partition(':')[0]]:.0%} slower"
        wanted = f"at most {bar:.0%} slower or faster" if target == "ort:cpu" else f"slower in {bar:.0%}"
        yield f"| {what} | {len(found)} | " + " | ".join(map(str, counts)) + f" | {wanted} |"


def met(runs: Sequence[Run]) -> bool:
    same = verdicts(runs, "ort:cpu")
    alarms = sum(word in {"slower", "faster"} for word in same)
    caught = {target: verdicts(runs, target).count("slower") for target in BARS if target != "ort:cpu"}
    return alarms <= BARS["ort:cpu"] * len(same) and all(caught[name] >= BARS[name] * len(same) for name in caught)
