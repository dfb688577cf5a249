"""A pipeline: cells built, checked, measured and judged; outputs made of those that pass, and published if all do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import hardware
from mbexport.artifact import read_artifact
from mbexport.bench.settings import Settings as BenchSettings
from mbexport.cache import Cache
from mbexport.errors import MbexportError
from mbexport.evaluate import EvaluationReport
from mbexport.pipelines.file import asks_accuracy
from mbexport.pipelines.gates import Evidence, GateResult, judge
from mbexport.pipelines.outputs import OutputResult, make_outputs
from mbexport.sweep.crew import targets_for
from mbexport.sweep.judged import evaluated
from mbexport.sweep.run import CellResult, Settings, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.bench.rows import BenchRow
    from mbexport.pipelines.document import GatesTable
    from mbexport.pipelines.file import Pipeline
    from mbexport.sweep.crew import Crew


class JudgedCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell, and what its gates say."""

    name: str
    passed: bool
    result: CellResult
    evaluation: EvaluationReport | None
    gates: list[GateResult]
    error: str | None
    """Why it could not be judged."""


class PipelineReport(msgspec.Struct, frozen=True, kw_only=True):
    """Every cell in the order of the file, and every output."""

    schema_version: int = 1
    pipeline: str
    machine: str
    passed: bool
    cells: list[JudgedCell]
    outputs: list[OutputResult]


@dataclass(frozen=True)
class Place:
    """Where a pipeline runs, and with what."""

    cache: Path
    targets: Sequence[str]
    threads: int
    measured_threads: int | None
    """None where the machine that measures chooses."""


def place_of(pipeline: Pipeline, cache: Path, threads: int, scheduler: str | None = None) -> Place:
    """Raises:
    MissingError: a runtime that the file names is not here, and nobody else would run it.
    """
    targets = targets_for(pipeline.runtimes, scheduler)
    return Place(cache, targets, threads, pipeline.threads if scheduler else threads)


def settings_of(pipeline: Pipeline, place: Place) -> Settings:
    """For the sweep over its cells."""
    return Settings(
        out=pipeline.out,
        cache=place.cache,
        targets=place.targets,
        workers=min(pipeline.workers or place.threads, len(pipeline.cells)),
        threads=place.threads,
        images=pipeline.images,
        labels=pipeline.labels,
        golden=pipeline.golden,
        bench=BenchSettings(threads=[place.measured_threads]) if pipeline.bench else None,
        profiles=pipeline.profiles,
    )


def run_pipeline(
    pipeline: Pipeline,
    place: Place,
    *,
    observe: Callable[[CellResult], None] = lambda _result: None,
    progress: Callable[[str, float | None], None] = lambda _message, _share: None,
    crew: Crew | None = None,
) -> PipelineReport:
    """Do all that is not done yet.

    Args:
        pipeline: checked.
        place: where.
        observe: given each cell's result, again whenever there is more of it.
        progress: told what is being done, and the share that is done.
        crew: who builds and measures; processes of this machine by default.

    Raises:
        InputError: a folder that is not to be replaced.
        OutputError: a place cannot be written to.
    """
    built = sweep(
        [each.cell for each in pipeline.cells],
        settings_of(pipeline, place),
        observe=observe,
        progress=progress,
        crew=crew,
    )
    judged = []
    for result, wanted in zip(built.cells, pipeline.cells, strict=True):
        progress(f"judge {result.name}", None)
        judged.append(_judged(result, wanted.gates, pipeline, place))
    outputs = make_outputs(pipeline, {cell.name: cell for cell in judged}, progress)
    passed = all(cell.passed for cell in judged) and all(output.passed for output in outputs)
    return PipelineReport(
        pipeline=str(pipeline.path), machine=hardware.detect().slug, passed=passed, cells=judged, outputs=outputs
    )


def _judged(result: CellResult, gates: GatesTable, pipeline: Pipeline, place: Place) -> JudgedCell:
    evaluation, found, error = None, [], None
    if result.passed and result.artifact is not None:
        try:
            artifact = read_artifact(Path(result.artifact))
            if asks_accuracy(gates) and pipeline.images is not None:
                evaluation = evaluated(Cache(place.cache), artifact, pipeline.images, place.targets, place.threads)
            found = judge(
                gates, Evidence(artifact, evaluation, _by_machine(result), pipeline.profiles), pipeline.folder
            )
        except MbexportError as wrong:
            error = str(wrong)
    passed = result.passed and error is None and all(gate.passed is not False for gate in found)
    return JudgedCell(name=result.name, passed=passed, result=result, evaluation=evaluation, gates=found, error=error)


def _by_machine(result: CellResult) -> dict[str, list[BenchRow]]:
    found: dict[str, list[BenchRow]] = {}
    for machine, row in zip(result.measured_on, result.rows, strict=True):
        found.setdefault(machine, []).append(row)
    return found
