"""The cells that a pipeline file asks for, and the faults of those that cannot be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import weights as weights_of
from mbexport.catalog import spec_of
from mbexport.errors import MbexportError, SpecError
from mbexport.pipelines.read import Fault
from mbexport.spec import ExportOptions
from mbexport.sweep.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.pipelines.document import CellsTable, GatesTable, PipelineDocument

_VARIED = ("variant", "model", "alpha", "resolution", "minimalistic")
_FIXED = ("classes", "include_top", "pooling", "classifier_activation", "dropout_rate", "include_preprocessing")


@dataclass(frozen=True)
class Wanted:
    """A cell and what it must hold."""

    cell: Cell
    gates: GatesTable


def wanted_cells(document: PipelineDocument, folder: Path) -> tuple[list[Wanted], list[Fault]]:
    """Every cell, float32 first.

    Args:
        document: as it was read.
        folder: of the file, which paths are relative to.
    """
    found: dict[str, Wanted] = {}
    faults: list[Fault] = []
    for place, table in enumerate(document.cells):
        for outcome in _cells(table, place, folder):
            if isinstance(outcome, Fault):
                faults.append(outcome)
            elif outcome.name in found:
                faults.append(
                    Fault(("cells", place), f"a second cell is called {outcome.name}; each needs its own folder")
                )
            else:
                found[outcome.name] = Wanted(outcome, merged(document.gates, table.gates))
    if not found and not faults:
        faults.append(Fault((), "no cells; add a [[cells]] table with a variant or a model"))
    return sorted(found.values(), key=lambda each: each.cell.precision != "f32"), faults


def _cells(table: CellsTable, place: int, folder: Path) -> Iterator[Cell | Fault]:
    at: tuple[str | int, ...] = ("cells", place)
    try:
        export = ExportOptions(
            layout=table.layout,
            batch=None if table.batch == "dynamic" else table.batch,
            input_type=table.input_type,
            preprocess=table.preprocess,
            **({} if table.opset is None else {"opset": table.opset}),
        )
    except SpecError as error:
        yield Fault((*at, "opset"), str(error))
        return
    weights = weights_of.under(table.weights, folder)
    told = set()
    for values in itertools.product(*(_each(getattr(table, name)) for name in _VARIED)):
        given = {name: value for name, value in zip(_VARIED, values, strict=True) if value is not None}
        given |= {name: value for name in _FIXED if (value := getattr(table, name)) is not None}
        try:
            spec = spec_of({**given, **({"resolution": str(given["resolution"])} if "resolution" in given else {})})
            if weights_of.split(weights)[0] != "imagenet":  # which would be downloaded
                weights_of.check(weights, spec)
        except MbexportError as error:
            if str(error) not in told:
                told.add(str(error))
                yield Fault((*at, *_blamed(table, str(error))), str(error))
            continue
        for precision in _each(table.precision):
            yield Cell(spec=spec, export=export, weights=weights, seed=table.seed, precision=precision)


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _blamed(table: CellsTable, message: str) -> list[str]:
    """The key that a message is about: the first word of it that the table gives."""
    names = [field.name for field in msgspec.structs.fields(table) if getattr(table, field.name) is not None]
    return next(
        ([name] for word in message.replace("--", "").replace("-", "_").split() for name in names if word == name), []
    )


def merged(whole: GatesTable, own: GatesTable | None) -> GatesTable:
    """The file's gates with a table's own in the place of those that it names."""
    given = (
        {} if own is None else {name: value for name, value in msgspec.structs.asdict(own).items() if value is not None}
    )
    return msgspec.structs.replace(whole, **given)
