"""What a pipeline would do, and what of it is done: read off the cache and the profiles, nothing is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from mbexport import cached, hardware
from mbexport.artifact import read_artifact
from mbexport.cache import Cache, digest_of
from mbexport.errors import ArtifactError
from mbexport.pipelines.document import GatesTable
from mbexport.pipelines.run import settings_of
from mbexport.sweep import checked
from mbexport.sweep.measured import unmeasured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mbexport.artifact import Artifact
    from mbexport.pipelines.file import Pipeline
    from mbexport.pipelines.run import Place
    from mbexport.sweep.cells import Cell
    from mbexport.sweep.run import Settings

Step = Literal["cached", "to do"]


class PlannedCell(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to do for a cell."""

    name: str
    build: Step
    validate: Step
    rows: int
    """To be measured, of ``rows_asked``; all of them where the cell is not built yet."""
    rows_asked: int
    gates: list[str]


class PlannedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What will be made."""

    kind: str
    path: str
    cells: list[str]
    publish: str | None


class PipelinePlan(msgspec.Struct, frozen=True, kw_only=True):
    """In the order in which it is done."""

    pipeline: str
    machine: str
    targets: list[str]
    cells: list[PlannedCell]
    outputs: list[PlannedOutput]


def plan_pipeline(pipeline: Pipeline, place: Place) -> PipelinePlan:
    """Raises:
    InputError: labels, golden pictures or pictures that cannot be read.
    """
    settings, cache = settings_of(pipeline, place), Cache(place.cache)
    built: dict[str, Artifact | None] = {}
    cells = []
    for wanted in pipeline.cells:
        built[wanted.cell.name] = _built(wanted.cell, cache, settings, built)
        cells.append(_planned(wanted.cell, wanted.gates, built[wanted.cell.name], cache, settings))
    return PipelinePlan(
        pipeline=str(pipeline.path),
        machine=hardware.detect().slug,
        targets=list(place.targets),
        cells=cells,
        outputs=[
            PlannedOutput(kind=each.kind, path=str(each.path), cells=list(each.cells), publish=each.publish)
            for each in pipeline.outputs
        ],
    )


def _built(cell: Cell, cache: Cache, settings: Settings, others: Mapping[str, Artifact | None]) -> Artifact | None:
    """As it lies in the cache."""
    if cell.precision == "f32":
        inputs = cached.inputs_of(
            cell.spec, cell.export, cell.weights, cell.seed, labels=settings.labels, golden=settings.golden
        )
        return _entry(cache, digest_of(cached.KIND, inputs))
    exact = others.get(cell.exact.name) or _built(cell.exact, cache, settings, others)
    if exact is None or settings.images is None:
        return None
    inputs = cached.narrow_inputs(exact, settings.images, settings.targets, cell.precision)
    return _entry(cache, digest_of(cached.NARROW, inputs))


def _entry(cache: Cache, digest: str) -> Artifact | None:
    folder = cache.look(digest)
    try:
        return None if folder is None else read_artifact(folder)
    except ArtifactError:  # damaged: it will be made again
        return None


def _planned(cell: Cell, gates: GatesTable, artifact: Artifact | None, cache: Cache, settings: Settings) -> PlannedCell:
    known = artifact is not None and cache.look(checked.digest(artifact, settings.targets)) is not None
    left, asked = _rows(artifact, settings)
    return PlannedCell(
        name=cell.name,
        build="to do" if artifact is None else "cached",
        validate="cached" if known else "to do",
        rows=left,
        rows_asked=asked,
        gates=[field.name for field in msgspec.structs.fields(GatesTable) if getattr(gates, field.name) is not None],
    )


def _rows(artifact: Artifact | None, settings: Settings) -> tuple[int, int]:
    """How many are to be measured, and how many are asked for."""
    if settings.bench is None:
        return 0, 0
    asked = len(settings.targets) * len(settings.bench.threads) * len(settings.bench.modes)
    if artifact is None:
        return asked, asked
    return len(unmeasured(artifact, settings.targets, settings.bench, settings.profiles)), asked
