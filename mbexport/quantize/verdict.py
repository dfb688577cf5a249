"""Whether a narrower artifact is worth having on this machine: speed, answers, size and memory, engine by engine."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Literal

import msgspec

from mbexport.bench.plan import Cell, WorkerPlan, interleave
from mbexport.bench.process import run_worker
from mbexport.bench.statistics import median

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.bench.plan import WorkerAnswer
    from mbexport.quantities import Mode
    from mbexport.quantize.change import Change

PROCESSES = 5
"""Pairs of fresh processes. The range of five ratios holds the median of all with 94%."""
_MEASURED_S, _LEAST_CALLS = 0.4, 30

Rule = Literal["top-1", "expected", "sqnr"]
"""What the answers are judged by: what labels show, where that is beyond chance on one side or the other of what may be
lost; else what the float network's own probabilities expect of the predictions that changed; or, of random weights and
of features, the distance."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One target. Shares of 1, times in seconds; intervals hold 94% (speed) and 95% (answers)."""

    runtime: str
    go: bool
    reason: str
    """Why, in words, with the better choice where it is a no-go."""
    better: Literal["f32", "bf16"] | None
    """What to run instead; None where it is a go."""
    rule: Rule
    """What the answers were judged by."""
    precision: str
    """Effective precision, read back from the engine."""
    speedup: float
    """Float32's latency, pinned, over this one's at the engine's defaults."""
    speedup_ci: tuple[float, float]
    p50_s: float
    float32_p50_s: float
    bf16_p50_s: float | None
    """Of the float32 artifact at the engine's defaults, where it computes in bf16 then."""
    pictures: int
    """That judged the answers; none of them calibrated the network that was judged."""
    top1_drop: float | None
    top1_drop_ci: tuple[float, float] | None
    top5_drop: float | None
    top5_drop_ci: tuple[float, float] | None
    expected_drop: float | None
    """See :class:`mbexport.quantize.change.Change`."""
    agreement: float | None
    agreement_ci: tuple[float, float] | None
    sqnr_db: float | None
    model_bytes: int
    float32_model_bytes: int
    memory_bytes: int
    """Growth of the process over the bare engine, after its first answer."""
    float32_memory_bytes: int


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The median latency of each process in turn, and what the engine computed in."""

    p50s_s: list[float]
    precision: str
    memory_bytes: int


def timings(
    source: Artifact, narrow: Artifact, targets: Sequence[str], threads: int, progress: Callable[[str], None]
) -> dict[tuple[str, str], Timing]:
    """(target, row) -> timing, of the rows ``f32`` (pinned), ``default`` (the same file as the engine likes) and
    ``narrow``; processes take turns.

    Raises:
        EngineError: an engine cannot run a row.
        ProcessError: a measuring process died.
    """
    rows: list[tuple[str, Artifact, Mode]] = [("f32", source, "parity"), ("default", source, "production")]
    rows.append(("narrow", narrow, "production"))
    named = [(target, *row) for target in targets for row in rows if not (row[0] == "default" and target == "ort:cpu")]
    cells = [_cell(artifact, target, mode, threads) for target, _, artifact, mode in named]
    heard: list[list[WorkerAnswer]] = [[] for _ in cells]
    for place, cell in interleave(cells, PROCESSES):
        progress(f"time {named[place][1]} on {cell.target}")
        plan = WorkerPlan(cell=cell, min_samples=_LEAST_CALLS, min_time_s=_MEASURED_S, max_time_s=4 * _MEASURED_S)
        heard[place].append(run_worker(plan))
    return {row[:2]: _timing(found) for row, found in zip(named, heard, strict=True)}


def _cell(artifact: Artifact, target: str, mode: Mode, threads: int) -> Cell:
    batch = artifact.manifest.input.shape[0] or 1
    path = str(artifact.path.absolute())
    return Cell(artifact=path, sha256=artifact.sha256, target=target, mode=mode, threads=threads, batch=batch)


def _timing(found: Sequence[WorkerAnswer]) -> Timing:
    return Timing(
        p50s_s=[median(answer.replicate.samples_ns) * 1e-9 for answer in found],
        precision=found[0].precision,
        memory_bytes=int(statistics.median(answer.replicate.memory_inferred_bytes for answer in found)),
    )


def verdict_of(
    target: str,
    seen: Change,
    plain: Change,
    *,
    clocked: Mapping[tuple[str, str], Timing],
    max_drop: float,
    least_sqnr_db: float | None,
    model_bytes: tuple[int, int],
) -> Verdict:
    """Judge one target.

    Args:
        target: such as ``ort:cpu``.
        seen: how the answers change.
        plain: the same of the float32 file at the engine's defaults, in bf16 maybe.
        clocked: as :func:`timings` gives it.
        max_drop: of top-1, as a share of 1.
        least_sqnr_db: for what has no accuracy, NaN where nothing can be asked for; None for others.
        model_bytes: of the narrower and the float32 model file.
    """
    exact, narrow = clocked[target, "f32"], clocked[target, "narrow"]
    default = clocked.get((target, "default"))
    ratios = sorted(one / other for one, other in zip(exact.p50s_s, narrow.p50s_s, strict=True))
    bf16 = default if default is not None and default.precision == "bf16" else None
    right_bf16 = bf16 if judged(plain, max_drop, least_sqnr_db)[1] is None else None
    p50_s, exact_s = statistics.median(narrow.p50s_s), statistics.median(exact.p50s_s)
    bf16_s = None if bf16 is None else statistics.median(bf16.p50s_s)
    rule, fault = judged(seen, max_drop, least_sqnr_db)
    faults = [*_slow(statistics.median(ratios), narrow, right_bf16), *([fault] if fault else [])]
    holds = f"{_faster(ratios)}, and {_hold(seen, rule, max_drop)}"
    better: Literal["f32", "bf16"] | None = None
    if faults:
        better = "bf16" if right_bf16 is not None and statistics.median(right_bf16.p50s_s) < exact_s else "f32"
    return Verdict(
        runtime=target,
        go=not faults,
        reason=f"{'; '.join(faults)}: better {better}" if faults else holds,
        better=better,
        rule=rule,
        precision=narrow.precision,
        speedup=statistics.median(ratios),
        speedup_ci=(ratios[0], ratios[-1]),
        p50_s=p50_s,
        float32_p50_s=exact_s,
        bf16_p50_s=bf16_s,
        pictures=seen.pictures,
        top1_drop=seen.top1_drop,
        top1_drop_ci=seen.top1_drop_ci,
        top5_drop=seen.top5_drop,
        top5_drop_ci=seen.top5_drop_ci,
        expected_drop=seen.expected_drop,
        agreement=seen.agreement,
        agreement_ci=seen.agreement_ci,
        sqnr_db=seen.sqnr_db,
        model_bytes=model_bytes[0],
        float32_model_bytes=model_bytes[1],
        memory_bytes=narrow.memory_bytes,
        float32_memory_bytes=exact.memory_bytes,
    )


def _slow(speedup: float, narrow: Timing, bf16: Timing | None) -> list[str]:
    if speedup <= 1:
        return [f"{1 / speedup:.2f} times as slow as float32"]
    if bf16 is not None and statistics.median(bf16.p50s_s) <= statistics.median(narrow.p50s_s):
        return ["bf16 of the float32 file is no slower"]
    return []


def _faster(ratios: Sequence[float]) -> str:
    """``ratios`` ascend, and their median is over 1."""
    return "faster than float32" if ratios[0] > 1 else "faster by the median, not beyond noise"


def _hold(seen: Change, rule: Rule, max_drop: float) -> str:
    """Why the answers are right enough; where labels point the other way and cannot tell, that is said."""
    expected, counted = seen.expected_drop, seen.top1_drop
    if rule == "expected" and expected is not None and counted is not None and counted > max_drop:
        return (
            f"its answers are expected to lose {expected * 100:.2f} points; the {counted * 100:.2f} counted on "
            f"{seen.pictures} pictures may be chance"
        )
    return "its answers hold"


def judged(seen: Change, max_drop: float, least_sqnr_db: float | None) -> tuple[Rule, str | None]:
    """The rule that decides, and the fault that it finds."""
    if not seen.finite:
        return "sqnr", "gives answers that are not finite"
    if least_sqnr_db is not None or seen.expected_drop is None:
        return "sqnr", _too_far(seen.sqnr_db, least_sqnr_db)
    if seen.top1_drop is not None and seen.top1_drop_ci is not None:
        low, high = seen.top1_drop_ci
        if not low <= max_drop <= high:
            lost = f"loses {seen.top1_drop * 100:.2f} points of top-1, at most {max_drop * 100:g} may be lost"
            return "top-1", lost if seen.top1_drop > max_drop else None
    lost = (
        f"by float32's probabilities of the classes that changed it loses {seen.expected_drop * 100:.2f} points of "
        f"top-1, at most {max_drop * 100:g} may be lost"
    )
    return "expected", lost if seen.expected_drop > max_drop else None


def _too_far(found_db: float | None, least_db: float | None) -> str | None:
    """``found_db`` is None of answers that are equal."""
    if least_db is None or not math.isfinite(least_db):
        return "nothing could be judged, for bf16 has no finite distance from float32 to compare with"
    if found_db is None or found_db >= least_db:
        return None
    return f"stands {found_db:.1f} dB from float32, at least {least_db:.1f} dB are asked for"
