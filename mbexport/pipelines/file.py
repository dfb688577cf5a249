"""A pipeline file -> a pipeline that can be planned and run: paths resolved, cells expanded, everything checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.errors import DocumentError, InputError
from mbexport.folders import labelled_set
from mbexport.labels import IMAGENET_CLASSES, imagenet_labels
from mbexport.labels_file import labels_from_file
from mbexport.pipelines import read
from mbexport.pipelines.cells import Wanted, merged, wanted_cells
from mbexport.pipelines.placing import Output, place_outputs
from mbexport.pipelines.read import Fault
from mbexport.profiles import read_profile
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mbexport.pipelines.document import GatesTable, PipelineDocument

_ON_PICTURES = ("min_top1", "min_top5", "max_drop", "max_flips")
_ON_ROWS = ("p50_ms", "p99_ms", "baseline")


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline file. Paths are the file's folder's, or absolute."""

    path: Path
    out: Path
    profiles: Path
    runtimes: tuple[str, ...]
    """Empty means all that are here."""
    images: Path | None
    labels: Path | None
    golden: Path | None
    bench: bool
    workers: int | None
    threads: int | None
    cells: tuple[Wanted, ...]
    outputs: tuple[Output, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent.absolute()


def read_pipeline(path: Path) -> Pipeline:
    """Check everything that can be checked before anything is built.

    Raises:
        InputError: the file cannot be read.
        PipelineFileError: it has faults; all of them are told, each with line and column.
    """
    text, folder = read.read_text(path), path.parent.absolute()
    document, faults = read.parse(text, path)
    broken = {fault.keys[:2] for fault in faults}  # what was taken away of a table is not missing in it
    cells, of_cells = wanted_cells(document, folder)
    faults += [fault for fault in of_cells if fault.keys[:2] not in broken and not (broken and fault.keys == ())]
    faults += _faults(document, folder)
    outputs: list[Output] = []
    if not faults:
        faults += _picture_faults(document, cells, folder)
        outputs, more = place_outputs(document, [each.cell.name for each in cells], path.absolute())
        faults += more
    read.refuse(faults, text, path)
    return Pipeline(
        path=path,
        out=folder / document.out,
        profiles=folder / document.profiles,
        runtimes=tuple(document.runtimes),
        images=_path(folder, document.images),
        labels=_path(folder, document.labels),
        golden=_path(folder, document.golden),
        bench=document.bench,
        workers=document.workers,
        threads=document.threads,
        cells=tuple(cells),
        outputs=tuple(outputs),
    )


def _path(folder: Path, text: str | None) -> Path | None:
    return None if text is None else folder / text


def _faults(document: PipelineDocument, folder: Path) -> Iterator[Fault]:
    for place, target in enumerate(document.runtimes):
        try:
            split_target(target)
        except InputError as error:
            yield Fault(("runtimes", place), str(error))
    yield from _path_faults(document, folder)
    for place, table in enumerate(document.cells):
        precisions = table.precision if isinstance(table.precision, list) else [table.precision]
        if document.images is None and set(precisions) - {"f32"}:
            yield Fault(("cells", place, "precision"), "int8 and f16 are calibrated on pictures: give images")
        if table.gates is not None:
            yield from _gate_faults(table.gates, ("cells", place, "gates"), document, folder)
        gates = merged(document.gates, table.gates)
        if gates.max_slower is not None and gates.baseline is None:
            at = ("gates",) if table.gates is None or table.gates.max_slower is None else ("cells", place, "gates")
            yield Fault((*at, "max_slower"), "slower than what? give a baseline beside it")
        asked = [name for name in _ON_PICTURES if getattr(gates, name) is not None]
        if asked and table.include_top is False:
            yield Fault(("cells", place, "include_top"), f"features have no accuracy: {asked[0]} cannot be judged")
    yield from _gate_faults(document.gates, ("gates",), document, folder)


def _path_faults(document: PipelineDocument, folder: Path) -> Iterator[Fault]:
    for name in ("images", "labels", "golden"):
        text = getattr(document, name)
        if text is not None and not (folder / text).exists():
            yield Fault((name,), f"{folder / text} is not there")
    for name in ("out", "profiles"):
        if (folder / getattr(document, name)).is_file():
            yield Fault((name,), f"{folder / getattr(document, name)} is a file; name a folder")


def _picture_faults(document: PipelineDocument, cells: Sequence[Wanted], folder: Path) -> Iterator[Fault]:
    """Whether labels can be read, and pictures are enough and labelled, which would else show after the last build."""
    try:
        named = None if document.labels is None else labels_from_file(folder / document.labels)
    except InputError as error:
        yield Fault(("labels",), str(error))
        return
    if document.images is not None and any(each.cell.precision != "f32" for each in cells):
        from mbexport.quantize.shown import refuse_few

        try:
            refuse_few(folder / document.images)
        except InputError as error:
            yield Fault(("images",), str(error))
            return
    judged = {each.cell.spec.classes for each in cells if asks_accuracy(each.gates)}
    for classes in sorted(judged if document.images is not None else ()):
        labels = imagenet_labels() if named is None and classes == IMAGENET_CLASSES else named
        try:
            labelled_set(folder / (document.images or ""), classes, labels)
        except InputError as error:
            yield Fault(("images",), str(error))
            return


def asks_accuracy(gates: GatesTable) -> bool:
    """Whether they are judged on pictures."""
    return any(getattr(gates, name) is not None for name in _ON_PICTURES)


def _gate_faults(
    gates: GatesTable, at: tuple[str | int, ...], document: PipelineDocument, folder: Path
) -> Iterator[Fault]:
    for name in _ON_PICTURES:
        if getattr(gates, name) is not None and document.images is None:
            yield Fault((*at, name), "accuracy is judged on labelled pictures: give images")
    for name in _ON_ROWS:
        if getattr(gates, name) is not None and not document.bench:
            yield Fault((*at, name), "latency is measured: leave bench = false out")
    if gates.baseline is not None:
        yield from (Fault((*at, "baseline"), text) for text in _baseline_faults(folder / gates.baseline))


def _baseline_faults(baseline: Path) -> Iterator[str]:
    if not baseline.exists():
        yield f"{baseline} is not there; it is a profile, or a folder of profiles"
    for path in sorted(baseline.glob("*.json")) if baseline.is_dir() else [baseline] * baseline.exists():
        try:
            read_profile(path)
        except DocumentError as error:
            yield str(error)
