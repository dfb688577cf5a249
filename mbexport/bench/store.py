"""The profiles that a bench writes: a row at a time, each file whole or not at all."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbexport import hardware, serde
from mbexport.bench.budget import measured_s, uneven_reason
from mbexport.bench.table import table_text
from mbexport.bench.verdict import judge
from mbexport.profile import LatencyProfile, Measurement
from mbexport.profiles import locked, merge, profile_path, read_folder, read_profile, write_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.bench.plan import Cell, WorkerAnswer
    from mbexport.profile import ColdStart, Hardware, ThreadPlan

README = "README.md"


@dataclass
class Store:
    """One machine's folder of profiles."""

    folder: Path
    machine: Hardware
    thread_plan: ThreadPlan
    artifacts: Mapping[str, Artifact]
    """By the folder that a cell names."""
    rows: dict[int, Measurement] = field(default_factory=dict)
    """What was added, by the row's number."""
    paths: dict[str, str] = field(default_factory=dict)
    """Artifact's slug -> its profile."""
    replaced: list[str] = field(default_factory=list)
    """Why rows of older profiles were dropped, where they were."""

    def slug_of(self, cell: Cell) -> str:
        return self.artifacts[cell.artifact].manifest.slug

    def add(self, row: int, cell: Cell, answers: Sequence[WorkerAnswer], prepared: list[ColdStart]) -> None:
        """Merge one finished row into its profile.

        Raises:
            DocumentError: the profile was damaged meanwhile.
            OutputError: it cannot be written.
        """
        measured = self._measurement(cell, answers, prepared)
        artifact = self.artifacts[cell.artifact]
        slug = artifact.manifest.slug
        fresh = LatencyProfile(
            artifact=slug,
            artifact_sha256=artifact.sha256,
            spec=artifact.manifest.spec,
            precision=artifact.manifest.precision,
            hardware=self.machine,
            measurements=[measured],
        )
        path = profile_path(self.folder.parent, self.machine, slug)
        with locked(self.folder):
            merged, replaced = merge(read_profile(path) if path.exists() else None, fresh)
            write_profile(path, merged)
        if replaced:
            self.replaced.append(replaced)
        self.rows[row] = measured
        self.paths[slug] = str(path)

    def refresh_table(self) -> None:
        """The folder's README, where something was added."""
        if self.rows:
            with locked(self.folder):
                serde.write_atomic(self.folder / README, table_text(read_folder(self.folder)).encode())

    def _measurement(self, cell: Cell, answers: Sequence[WorkerAnswer], prepared: list[ColdStart]) -> Measurement:
        """One row. Beside their samples the processes say the same, or the verdict says that they do not."""
        first = answers[0]
        verdict, reasons = judge(answers, cell.mode, self.artifacts[cell.artifact].manifest.precision)
        uneven = uneven_reason([measured_s(answer) for answer in answers])
        if uneven is not None:
            verdict, reasons = ("noisy" if verdict == "ok" else verdict), [*reasons, uneven]
        driver = hardware.accelerator_driver() if cell.target == "ort:cuda" else None
        return Measurement(
            runtime=cell.target,
            mode=cell.mode,
            precision=first.precision,
            threads=cell.threads,
            thread_plan=self.thread_plan,
            batch=cell.batch,
            scenario=cell.scenario,
            concurrency=first.concurrency,
            model=cell.model,
            asked_options=dict(cell.options),
            placement=first.placement,
            engine_options=first.engine_options,
            versions=first.versions | ({"nvidia driver": driver} if driver else {}),
            inputs_sha256=first.inputs_sha256,
            input_size=first.input_size,
            measured_on=dt.datetime.now(dt.UTC).date().isoformat(),
            replicates=[answer.replicate for answer in answers],
            prepared=prepared,
            verdict=verdict,
            reasons=reasons,
        )
