"""Measure an artifact's rows in fresh processes and write this machine's profile of it."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import hardware, serde, thresholds
from mbexport.bench.plan import WorkerPlan, choose_batch, choose_threads, interleave
from mbexport.bench.process import run_worker
from mbexport.bench.rows import BenchReport, FailedRow, row_of
from mbexport.bench.table import table_text
from mbexport.bench.verdict import judge
from mbexport.errors import EngineError, InputError, ProcessError
from mbexport.profile import LatencyProfile, Measurement
from mbexport.profiles import locked, merge, profile_path, read_folder, read_profile, write_profile
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.artifact import Artifact
    from mbexport.bench.plan import WorkerAnswer
    from mbexport.profile import Mode, ThreadPlan

README = "README.md"


def bench(
    artifact: Artifact,
    targets: Sequence[str],
    *,
    threads: int | None = None,
    batch: int | None = None,
    modes: Sequence[Mode] = ("parity", "production"),
    profiles: Path = Path("profiles"),
    progress: Callable[[str, float], None] | None = None,
) -> BenchReport:
    """Measure one row per target and mode, and put them into ``profiles/<hardware-slug>/<artifact-slug>.json``.

    A row whose engine fails, or whose process dies, is left out of the profile and reported as failed; the others are
    measured all the same.

    Args:
        artifact: a checked artifact.
        targets: such as ``ort:cpu``.
        threads: for every engine alike; None means one per usable physical core.
        batch: pictures per call; None means the artifact's own batch, or 1 where that is dynamic.
        modes: ``parity`` pins float32, ``production`` keeps the engine's defaults.
        profiles: the folder of all machines' profiles; made when needed.
        progress: called with what is being done and the share that is done, 0 to 1.

    Raises:
        DocumentError: a stored profile of this machine is damaged or of a newer schema version.
        InputError: a target, thread count or batch that cannot be.
        MissingError: an engine or a device is not here.
        OutputError: ``profiles`` cannot be written to.
    """
    thread_plan = hardware.usable_threads()
    plans = _plans(artifact, targets, modes, choose_threads(threads, thread_plan), batch)
    machine = hardware.detect()
    path = profile_path(profiles, machine, artifact.manifest.slug)
    serde.refuse_unwritable(path.parent)
    read_folder(path.parent)  # a profile that cannot be read is better found before measuring than after
    answers, failed = _measure(plans, progress)
    rows = [_measurement(plans[row], thread_plan, got) for row, got in answers.items()]
    if not rows:
        return BenchReport(profile=None, rows=[], failed=failed)
    fresh = LatencyProfile(
        artifact=artifact.manifest.slug,
        artifact_sha256=artifact.sha256,
        spec=artifact.manifest.spec,
        hardware=machine,
        measurements=rows,
    )
    replaced = _store(path, fresh)
    return BenchReport(profile=str(path), rows=[row_of(row) for row in rows], failed=failed, replaced=replaced)


def _plans(
    artifact: Artifact, targets: Sequence[str], modes: Sequence[Mode], threads: int, batch: int | None
) -> list[WorkerPlan]:
    names = dict.fromkeys(":".join(split_target(target)) for target in targets)
    if not names or not modes:
        raise InputError("nothing to measure: name at least one runtime, such as ort:cpu, and one mode")
    return [
        WorkerPlan(
            artifact=str(artifact.path.absolute()),
            target=target,
            mode=mode,
            threads=threads,
            batch=choose_batch(batch, artifact.manifest.export.batch),
            min_samples=math.ceil(thresholds.BENCH_MIN_SAMPLES / thresholds.BENCH_REPLICATES),
        )
        for target in names
        for mode in dict.fromkeys(modes)
    ]


def _measure(
    plans: Sequence[WorkerPlan], progress: Callable[[str, float], None] | None
) -> tuple[dict[int, list[WorkerAnswer]], list[FailedRow]]:
    """The answers of each row, from processes in interleaved order, and the rows that failed in any of theirs."""
    answers: dict[int, list[WorkerAnswer]] = {row: [] for row in range(len(plans))}
    failed: list[FailedRow] = []
    whole = len(plans) * thresholds.BENCH_REPLICATES
    for step, (row, plan) in enumerate(interleave(plans, thresholds.BENCH_REPLICATES)):
        if row not in answers:
            continue
        if progress is not None:
            progress(f"measure {plan.target} {plan.mode}", step / whole)
        try:
            answers[row].append(run_worker(plan))
        except (EngineError, ProcessError) as error:
            del answers[row]
            failed.append(FailedRow(runtime=plan.target, mode=plan.mode, reason=str(error)))
    if progress is not None:
        progress("measured", 1.0)
    return answers, failed


def _measurement(plan: WorkerPlan, thread_plan: ThreadPlan, answers: Sequence[WorkerAnswer]) -> Measurement:
    """One row. Beside their samples the processes say the same, or the verdict says that they do not."""
    first = answers[0]
    verdict, reasons = judge(answers, plan.mode)
    return Measurement(
        runtime=plan.target,
        mode=plan.mode,
        precision=first.precision,
        threads=plan.threads,
        thread_plan=thread_plan,
        batch=plan.batch,
        placement=first.placement,
        engine_options=first.engine_options,
        versions=first.versions,
        inputs_sha256=first.inputs_sha256,
        input_size=first.input_size,
        measured_on=dt.datetime.now(dt.UTC).date().isoformat(),
        replicates=[answer.replicate for answer in answers],
        verdict=verdict,
        reasons=reasons,
    )


def _store(path: Path, fresh: LatencyProfile) -> str | None:
    """Merge into what lies there now, refresh the folder's table, and say why older rows were dropped."""
    with locked(path.parent):
        merged, replaced = merge(read_profile(path) if path.exists() else None, fresh)
        write_profile(path, merged)
        serde.write_atomic(path.parent / README, table_text(read_folder(path.parent)).encode())
    return replaced
