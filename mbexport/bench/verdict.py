"""Whether a row can be trusted: ok, noisy or invalid, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import thresholds
from mbexport.bench import statistics
from mbexport.bench.disturbances import disturbances
from mbexport.bench.drift import drift_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mbexport.bench.plan import WorkerAnswer
    from mbexport.profile import Replicate, Verdict
    from mbexport.quantities import Mode
    from mbexport.spec import Precision

_NARROW = {"tf32", "bf16", "f16"}


def judge(answers: Sequence[WorkerAnswer], mode: Mode, precision: Precision = "f32") -> tuple[Verdict, list[str]]:
    """Invalid: not what was asked for, or too few samples even for a median. Noisy: real, but disturbed.

    ``precision`` is that of the model file, which parity asks for.
    """
    replicates = [answer.replicate for answer in answers]
    narrower = {answer.precision for answer in answers} & _NARROW - {precision} if mode == "parity" else set()
    invalid = [*_invalid(replicates, precision, narrower), *_disagreements(answers)]
    noisy = list(_noisy(replicates))
    if invalid:
        return "invalid", invalid + noisy
    return ("noisy" if noisy else "ok"), noisy


def _invalid(replicates: Sequence[Replicate], precision: Precision, narrower: set[str]) -> Iterator[str]:
    count, least = sum(len(replicate.samples_ns) for replicate in replicates), statistics.min_samples(0.5)
    if count < least:
        yield f"{count} samples; a median needs {least}"
    if narrower:
        asked = "float32" if precision == "f32" else f"the file's {precision}"
        yield f"parity means {asked}, but the engine ran {', '.join(sorted(narrower))}"


def _disagreements(answers: Sequence[WorkerAnswer]) -> Iterator[str]:
    """One row pools its processes' samples, so they must have done the same work."""
    for what, values in (
        ("precision", [answer.precision for answer in answers]),
        ("placement", [_placement_text(answer.placement) for answer in answers]),
        ("inputs", [answer.inputs_sha256[:12] for answer in answers]),
        ("versions", [_versions_text(answer.versions) for answer in answers]),
    ):
        if len(set(values)) > 1:
            yield f"the processes differ in {what}: {'; '.join(values)}"


def _placement_text(placement: Mapping[str, int]) -> str:
    return ", ".join(f"{count} nodes on {device}" for device, count in sorted(placement.items()))


def _versions_text(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _noisy(replicates: Sequence[Replicate]) -> Iterator[str]:
    if len(replicates) < thresholds.BENCH_LEAST_REPLICATES:
        yield f"{len(replicates)} of {thresholds.BENCH_LEAST_REPLICATES} processes; their spread is not known"
    spread = statistics.between_share([replicate.samples_ns for replicate in replicates if replicate.samples_ns])
    if spread is not None and spread > thresholds.NOISY_BETWEEN_SHARE:
        yield f"the processes' medians spread over {spread:.1%} (limit {thresholds.NOISY_BETWEEN_SHARE:.0%})"
    unsettled = sum(not replicate.warmup_settled for replicate in replicates)
    if unsettled:
        yield f"warm-up did not settle in {unsettled} of {len(replicates)} processes"
    yield from disturbances(replicates)
    drift = max((drift_share(replicate.samples_ns) for replicate in replicates), default=0.0)
    if drift > thresholds.NOISY_DRIFT_SHARE:
        yield f"latency drifted by {drift:.0%} within a process (limit {thresholds.NOISY_DRIFT_SHARE:.0%})"
