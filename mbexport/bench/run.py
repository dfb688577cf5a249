"""Measure the cells of a bench in fresh processes and write this machine's profiles of them."""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import hardware, serde
from mbexport.bench.budget import Budget, measured_s, plan_budget, planned_limits, replicates_for, reserved
from mbexport.bench.journal import Journal
from mbexport.bench.plan import ColdPlan, WorkerPlan, interleave
from mbexport.bench.process import run_cold, run_worker
from mbexport.bench.rows import BenchReport, FailedRow, TakenOver, row_of
from mbexport.bench.settings import Settings, cells_of, refuse_other_machines
from mbexport.bench.store import Store
from mbexport.errors import EngineError, ProcessError
from mbexport.profiles import profile_path, read_folder
from mbexport.samples import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.artifact import Artifact
    from mbexport.bench.budget import BudgetPlan
    from mbexport.bench.journal import KeptProcess
    from mbexport.bench.plan import Cell, WorkerAnswer
    from mbexport.bench.timing import Limits
    from mbexport.profile import ColdStart

    Progress = Callable[[str, float], None]

_COLD_STARTS = 3
"""Processes that start with what the engine kept, after one that lets it keep that."""


def bench(
    artifacts: Sequence[Artifact],
    targets: Sequence[str],
    settings: Settings | None = None,
    *,
    profiles: Path = Path("profiles"),
    fresh: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure one row for each artifact, target and setting, and put them into ``profiles/<hardware>/<artifact>.json``.

    A row is stored when its last process has ended. What was measured of the others stays beside the profiles until
    they are finished too: the same bench, started again within a day, goes on where this one stopped, and one that asks
    for other limits takes over the processes that measured no less. A row whose engine fails, or whose process dies, is
    left out of the profile and reported as failed.

    Args:
        artifacts: checked artifacts.
        targets: such as ``ort:cpu``.
        settings: what is varied, and how long it may take.
        profiles: the folder of all machines' profiles; made when needed.
        fresh: whether to throw away what an earlier bench of these rows left when it was stopped.
        progress: called with what is being done and the share that is done, 0 to 1.

    Raises:
        DocumentError: a stored profile of this machine is damaged or of a newer schema version.
        InputError: a target, setting or budget that cannot be.
        MissingError: an engine or a device is not here.
        OutputError: ``profiles`` cannot be written to.
    """
    prepared = prepare(artifacts, targets, settings, profiles=profiles, fresh=fresh)
    report = prepared.run(progress)
    prepared.forget()
    return report


def prepare(
    artifacts: Sequence[Artifact],
    targets: Sequence[str],
    settings: Settings | None = None,
    *,
    profiles: Path = Path("profiles"),
    fresh: bool = False,
    cells: Sequence[Cell] | None = None,
) -> PreparedBench:
    """The first half of :func:`bench`: check all that can be checked before measuring, and look for what an earlier
    bench left. Takes and raises the same; ``cells`` of the artifacts are measured instead of every combination.
    """
    settings = settings or Settings()
    thread_plan = hardware.usable_threads()
    cells = cells_of(artifacts, targets, settings, thread_plan) if cells is None else cells
    shared_s = reserved(settings.budget_s, len(cells), 1 + _COLD_STARTS if settings.cold else 0)
    replicates = replicates_for(shared_s, len(cells))
    machine = hardware.detect()
    folder = profile_path(profiles, machine, artifacts[0].manifest.slug).parent
    serde.refuse_unwritable(folder)
    refuse_other_machines(read_folder(folder), machine)  # and no damaged profile: better found now than after
    journal = Journal(folder)
    if fresh:
        journal.forget(cells)
    limits = planned_limits(shared_s, len(cells), replicates)
    kept = [journal.processes(cell, limits)[:replicates] for cell in cells]
    answers = {row: [process.answer for process in found] for row, found in enumerate(kept)}
    plan = None
    if settings.budget_s is not None:
        kept_s = [[measured_s(answer) for answer in known] for known in answers.values()]
        plan = plan_budget(settings.budget_s, limits.max_time_s, replicates, kept_s, settings.concurrency)
    return PreparedBench(
        plan=plan,
        cells=cells,
        replicates=replicates,
        taken_over=_taken_over([process for found in kept for process in found]),
        budget_s=shared_s,
        limits=limits,
        cold=settings.cold,
        journal=journal,
        store=Store(folder, machine, thread_plan, {str(each.path.absolute()): each for each in artifacts}),
        answers=answers,
    )


@dataclass
class PreparedBench:
    """A bench that may start; to be run once."""

    plan: BudgetPlan | None
    """What the budget is to buy; None without one, or where nothing is left to measure."""
    taken_over: TakenOver | None
    """What an earlier bench left; None where there is nothing that counts for this one."""
    cells: Sequence[Cell]
    replicates: int
    budget_s: float | None
    """For the processes that are still to run."""
    limits: Limits
    """What is planned for each process."""
    cold: bool
    journal: Journal
    store: Store
    answers: dict[int, list[WorkerAnswer]]
    """Of each row that has not failed: first what an earlier bench left."""
    failed: list[FailedRow] = field(default_factory=list)
    unprepared: list[FailedRow] = field(default_factory=list)
    progress: Progress | None = None

    def run(self, progress: Progress | None = None) -> BenchReport:
        """The second half of :func:`bench`. What it measured is kept to go on with until :meth:`forget`."""
        self.progress = progress
        resumed = sum(len(known) == self.replicates for known in self.answers.values())
        try:
            self._run()
        finally:
            self.store.refresh_table()
        rows = self.store.rows
        return BenchReport(
            profile=next(iter(self.store.paths.values()), None),
            profiles=self.store.paths,
            rows=[row_of(self.store.slug_of(self.cells[row]), rows[row]) for row in sorted(rows)],
            failed=self.failed,
            resumed=resumed,
            taken_over=self.taken_over,
            unprepared=self.unprepared,
            replaced=self.store.replaced,
            budget=self.plan,
        )

    def forget(self) -> None:
        """All is done, so that the same bench, started again, is a new one."""
        self.journal.forget(self.cells)

    def _run(self) -> None:
        """All processes in interleaved order, without those that an earlier bench ran already."""
        answers = self.answers
        found = {row: len(known) for row, known in answers.items()}
        budget = Budget(
            self.budget_s,
            processes=sum(self.replicates - count for count in found.values()),
            planned=self.limits,
        )
        whole = max(budget.processes, 1)
        for row, known in answers.items():
            if len(known) == self.replicates:
                self._finish(row)
        turns = enumerate(interleave(self.cells, self.replicates))
        for row, cell in [turn for place, turn in turns if place // len(self.cells) >= found[turn[0]]]:
            if row not in answers:
                budget.processes -= 1
                continue
            self._tell(cell, budget, 1 - budget.processes / whole)
            self._measure(row, cell, budget)
        self._tell(None, budget, 1.0)

    def _measure(self, row: int, cell: Cell, budget: Budget) -> None:
        limits = budget.limits()
        began = time.monotonic()
        plan = WorkerPlan(
            cell=cell, min_samples=limits.min_samples, min_time_s=limits.min_time_s, max_time_s=limits.max_time_s
        )
        try:
            answer = run_worker(plan)
        except (EngineError, ProcessError) as error:
            del self.answers[row]
            budget.spent(time.monotonic() - began, 0.0)
            self.failed.append(self._failed(cell, error))
            return
        self.answers[row].append(answer)
        self.journal.add(cell, self.limits, answer)
        budget.spent(time.monotonic() - began, _all_measured_s(answer))
        if len(self.answers[row]) == self.replicates:
            self._finish(row)

    def _finish(self, row: int) -> None:
        cell = self.cells[row]
        self.store.add(row, cell, self.answers[row], self._prepared(cell) if self.cold else [])

    def _prepared(self, cell: Cell) -> list[ColdStart]:
        """Starts with what the engine kept, or none where it cannot: what was measured of the row stays as it is."""
        starts = self.journal.starts(cell)
        if starts:
            return starts
        try:
            starts = _cold_starts(cell)
        except (EngineError, ProcessError) as error:
            self.unprepared.append(self._failed(cell, error))
            return []
        self.journal.add_starts(cell, starts)
        return starts

    def _failed(self, cell: Cell, error: Exception) -> FailedRow:
        return FailedRow(
            artifact=self.store.slug_of(cell),
            runtime=cell.target,
            mode=cell.mode,
            threads=cell.threads,
            batch=cell.batch,
            reason=str(error),
        )

    def _tell(self, cell: Cell | None, budget: Budget, share: float) -> None:
        if self.progress is None:
            return
        if cell is None:
            self.progress("measured", share)
            return
        left_s = budget.left_s()
        left = "" if left_s is None else f", {_duration(left_s)} left"
        self.progress(f"measure {self.store.slug_of(cell)} {cell.target} {cell.mode}{left}", share)


def _all_measured_s(answer: WorkerAnswer) -> float:
    """How long the process's measured loops took, with the one without copies of devices that have it."""
    device = answer.replicate.device_samples
    return measured_s(answer) + (sum(unpacked(device)) * 1e-9 if device else 0.0)


def _taken_over(processes: Sequence[KeptProcess]) -> TakenOver | None:
    if not processes:
        return None
    first = dt.datetime.fromtimestamp(min(process.written for process in processes), dt.UTC)
    return TakenOver(processes=len(processes), measured_from=first.isoformat(timespec="seconds"))


def _cold_starts(cell: Cell) -> list[ColdStart]:
    """Starts of processes that find what the engine kept of the model; the first one only lets it be kept."""
    with tempfile.TemporaryDirectory(prefix="mbexport-") as kept:
        starts = [run_cold(ColdPlan(cell=cell, kept=kept)) for _ in range(1 + _COLD_STARTS)]
    return starts[1:]


def _duration(time_s: float) -> str:
    minute_s = 60
    return f"{time_s:.0f} s" if time_s < 2 * minute_s else f"{time_s / minute_s:.0f} min"
