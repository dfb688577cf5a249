"""Where a pipeline's outputs go, and the faults of those that cannot go there."""

from __future__ import annotations

import fnmatch
import os
import string
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import weights as weights_of
from mbexport.bundle.sign import signer
from mbexport.errors import InputError
from mbexport.pipelines.read import Fault
from mbexport.pipelines.reports import REPORTS
from mbexport.publish import target_url
from mbexport.remote import is_known, local_path, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mbexport.pipelines.document import Kind, OutputTable, PipelineDocument
    from mbexport.pipelines.positions import Keys

_NEEDED = "which the pipeline needs"


@dataclass(frozen=True)
class Output:
    """One file or folder to be made."""

    kind: Kind
    path: Path
    cells: tuple[str, ...]
    """Float32 first."""
    sign: Path | None
    publish: str | None
    force: bool


def place_outputs(document: PipelineDocument, names: Sequence[str], path: Path) -> tuple[list[Output], list[Fault]]:
    """Args:
    document: the pipeline file's.
    names: of its cells.
    path: of the file, absolute.
    """
    found: dict[Path, Output] = {}
    faults: list[Fault] = []
    urls: dict[str, Path] = {}
    tables: dict[Path, Keys] = {}
    for place, table in enumerate(document.outputs):
        at = ("outputs", place)
        wrong = [Fault((*at, *keys), text) for keys, text in _output_faults(table, names, path.parent)]
        faults += wrong
        for output in [] if wrong else [_output(table, name, path.parent) for name in names if _is_chosen(name, table)]:
            there = found.get(output.path)
            needed = _needed(output, document, names, path)
            if clash := _clash(output, found, needed):
                faults.append(Fault((*at, "path"), clash))
                break
            if clash := _published_clash(output, urls, needed):
                faults.append(Fault((*at, "publish"), clash))
                break
            cells = (*(there.cells if there else ()), *output.cells)
            found[output.path] = replace(output, cells=tuple(dict.fromkeys(cells)))
            tables[output.path] = at
    for output in found.values():
        if clash := _published_over(output, [other for other in found if other != output.path], "another output"):
            faults.append(Fault((*tables[output.path], "publish"), clash))
    return list(found.values()), faults


def _clash(output: Output, others: Mapping[Path, Output], needed: Sequence[Path]) -> str | None:
    """What an output would overwrite."""
    there = others.get(output.path)
    if there is not None and replace(there, cells=()) != replace(output, cells=()):
        return f"{output.path} is the path of another output too"
    for other in others:
        if other != output.path and (_is_within(other, output.path) or _is_within(output.path, other)):
            return f"{output.path} and {other}, another output, would lie in each other"
    for kept in needed:
        if _is_within(output.path, kept) or _is_within(kept, output.path):
            return f"{output.path} would lie over {kept}, {_NEEDED}"
    return None


def _published_clash(output: Output, urls: dict[str, Path], needed: Sequence[Path]) -> str | None:
    """What would be replaced at a URL; ``urls`` are those of the outputs before it."""
    if output.publish is not None and urls.setdefault(output.publish, output.path) != output.path:
        return f"{output.publish} is where another output goes too"
    return _published_over(output, needed, _NEEDED)


def _published_over(output: Output, kept: Sequence[Path], what: str) -> str | None:
    """Where it would lie over one of these by its URL."""
    place = None if output.publish is None else local_path(target_url(output.path, output.publish))
    there = next((each for each in kept if place is not None and _is_within(place, each)), None)
    return None if there is None else f"{output.publish} would lie over {there}, {what}"


def _needed(output: Output, document: PipelineDocument, names: Sequence[str], path: Path) -> list[Path]:
    """Files and folders of the pipeline's own, and what it reads."""
    folder, out = path.parent, path.parent / document.out
    gates = [document.gates, *(table.gates for table in document.cells if table.gates is not None)]
    texts = (document.images, document.labels, document.golden, *(each.baseline for each in gates))
    inputs = [path, *(folder / text for text in texts if text), *([output.sign] if output.sign else [])]
    inputs += [
        Path(file) for table in document.cells if (file := weights_of.split(weights_of.under(table.weights, folder))[1])
    ]
    return [*inputs, *(out / name for name in names), *(out / name for name in REPORTS), folder / document.profiles]


def _is_within(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


def _output_faults(table: OutputTable, names: Sequence[str], folder: Path) -> Iterator[tuple[Keys, str]]:
    if not table.path:
        yield ("path",), "where? give a path such as dist/{network}.zip"
    for name in ("path", "publish"):
        text = getattr(table, name)
        if text is not None and not _is_template(text):
            yield (name,), f"only {{name}} and {{network}} can stand in braces, not {text!r}"
    if table.publish is not None and url_of(table.publish) is None:
        yield ("publish",), f"give a URL, such as s3://models/{{network}}.zip, not {table.publish!r}"
    elif table.publish is not None and not is_known(table.publish):
        yield ("publish",), f"fsspec knows no such kind of URL as {table.publish!r}"
    if table.force and table.publish is None:
        yield ("force",), "replace what? give publish beside it"
    for place, pattern in enumerate(table.cells):
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            yield ("cells", place), f"no cell is called so; there are {', '.join(names)}"
    if table.sign is not None:
        yield from _sign_faults(table.kind, folder / table.sign)


def _sign_faults(kind: Kind, key: Path) -> Iterator[tuple[Keys, str]]:
    if kind != "bundle":
        yield ("sign",), f"a bundle is signed, not {kind}"
        return
    try:
        signer(key)
    except InputError as error:
        yield ("sign",), str(error)


def _is_template(text: str) -> bool:
    """Whether :func:`placed` can fill it."""
    try:
        parts = [*string.Formatter().parse(text)]
    except ValueError:
        return False
    return all(name in {None, "name", "network"} and not spec and not how for _, name, spec, how in parts)


def _is_chosen(name: str, table: OutputTable) -> bool:
    return not table.cells or any(fnmatch.fnmatchcase(name, pattern) for pattern in table.cells)


def _output(table: OutputTable, name: str, folder: Path) -> Output:
    publish = None if table.publish is None else placed(table.publish, name)
    path = Path(os.path.normpath(folder / placed(table.path, name)))
    return Output(table.kind, path, (name,), None if table.sign is None else folder / table.sign, publish, table.force)


def placed(text: str, name: str) -> str:
    """``{name}`` and ``{network}`` of a cell."""
    network = next((name.removesuffix(f"_{each}") for each in ("int8", "f16") if name.endswith(f"_{each}")), name)
    return text.format(name=name, network=network)
