"""A file of answers, as ``validate --save-outputs`` writes it: what is needed to judge them again, anywhere.

An ``.npz`` with a JSON document (``document``) and the arrays ``truth/<probe>/<output>`` and
``answer/<row>/<probe>/<output>``, probes and rows counted from 0 as in the document. NumPy and msgspec read it. It
comes from other machines, so nothing in it is trusted: it is not compressed, so that it cannot unpack to more than it
is, and holds numbers alone.
"""

from __future__ import annotations

import io
import itertools
import struct
import tokenize
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mbexport import serde
from mbexport.accuracy.report import Precision
from mbexport.errors import InputError, OutputError
from mbexport.manifest import OutputContract
from mbexport.profile import Hardware
from mbexport.quantities import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

SCHEMA_VERSION = 1
_DOCUMENT = "document"
_NUMBERS = "biuf"
"""NumPy's kinds of types that are numbers; an object would be a pickle."""
_BROKEN = (
    *(zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, MemoryError),
)
"""What zipfile, and NumPy's parser of an array's head, raise on bytes that nobody wrote on purpose."""


class SavedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The least SQNR of one output in dB, and its origin in words."""

    least_db: float
    origin: str


class SavedProbe(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of inputs."""

    name: str
    """Such as ``reference pictures at 160x96``; unique in a file."""
    pictures: list[str]
    """What each is called."""
    inputs_sha256: str
    """Of type, shape and numbers."""


class SavedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime in one mode, with what ``validate`` said of it."""

    runtime: str
    mode: Mode
    batch: int
    """The most pictures at a time that were tried; the answers are those."""
    precision: Precision
    placement: dict[str, int]
    """Device -> number of nodes."""
    engine_options: dict[str, str]
    versions: dict[str, str]
    """Of the engine."""
    limits: dict[str, dict[str, SavedLimit]]
    """Probe -> output -> limit; without the probes that there are no answers to."""
    passed: bool
    reason: str | None


class SavedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """All but the arrays."""

    schema_version: int = SCHEMA_VERSION
    artifact: str
    """Its slug."""
    artifact_sha256: str
    """Of model.onnx."""
    hardware: Hardware
    versions: dict[str, str]
    """Of Python, NumPy and mbexport itself."""
    outputs: list[OutputContract]
    probes: list[SavedProbe]
    rows: list[SavedRow]


@dataclass(frozen=True)
class SavedOutputs:
    """A file's contents."""

    document: SavedDocument
    truth: Mapping[str, Arrays]
    """Probe -> output -> float64, the batch first; whole and finite."""
    answers: Sequence[Mapping[str, Arrays]]
    """Of each row, by probe and output; what a runtime did not answer is missing."""


def refuse_unwritable(path: Path) -> None:
    """Raise :class:`OutputError` where the file could not be written, before anything is computed for it."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it, such as {path / 'outputs.npz'}")
    serde.refuse_unwritable(path.parent)


def write_saved(path: Path, saved: SavedOutputs) -> None:
    """Write the file whole or not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    document = saved.document
    arrays: dict[str, NDArray[Any]] = {_DOCUMENT: np.frombuffer(serde.json_bytes(document), np.uint8)}
    for place, probe in enumerate(document.probes):
        arrays |= _keyed(f"truth/{place}", saved.truth[probe.name])
        for row, answers in enumerate(saved.answers):
            arrays |= _keyed(f"answer/{row}/{place}", answers.get(probe.name, {}))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    serde.write_atomic(path, buffer.getvalue())


def read_saved(path: Path) -> SavedOutputs:
    """Read such a file; its size bounds the memory that this takes.

    Raises:
        InputError: missing, damaged, or of another program.
        DocumentError: of a newer mbexport (NewerSchemaError), or its document is damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; make one with: mbexport validate ARTIFACT --save-outputs {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            _check_sizes(entries.values(), path)

            def array(key: str) -> NDArray[Any]:
                if key not in entries:
                    raise ValueError(f"it lacks {key}")
                return _numbers(archive.read(entries[key]), key)

            data = array(_DOCUMENT).tobytes()
            document = serde.parse_document(data, path, SavedDocument, SCHEMA_VERSION)
            return _assembled(document, entries, array)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no file of mbexport validate --save-outputs, or a damaged one ({said})") from error


def _keyed(head: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {f"{head}/{name}": array for name, array in arrays.items()}


def _check_sizes(entries: Collection[zipfile.ZipInfo], path: Path) -> None:
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, and mbexport writes it as it is")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("it claims to hold more bytes than it has")


def _numbers(data: bytes, key: str) -> NDArray[Any]:
    """The array in the bytes of an ``.npy``, a view of them."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{key} has a head of a form that mbexport does not write")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"{key} holds {dtype} instead of numbers")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran_order else "C")


def _assembled(document: SavedDocument, keys: Collection[str], array: Callable[[str], NDArray[Any]]) -> SavedOutputs:
    if not (document.rows and document.probes and document.outputs):
        raise ValueError("it names no rows, no inputs or no outputs")
    truth: dict[str, dict[str, NDArray[Any]]] = {}
    answers: list[dict[str, dict[str, NDArray[Any]]]] = [{} for _ in document.rows]
    known = {_DOCUMENT}
    for (place, probe), output in itertools.product(enumerate(document.probes), document.outputs):
        key = f"truth/{place}/{output.name}"
        truth.setdefault(probe.name, {})[output.name] = _checked_truth(array(key), probe, output)
        known.add(key)
        for row, answered in enumerate(answers):
            key = f"answer/{row}/{place}/{output.name}"
            if key in keys:
                answered.setdefault(probe.name, {})[output.name] = array(key)
                known.add(key)
    foreign = sorted(set(keys) - known)
    if foreign:
        raise ValueError(f"it holds {foreign[0]}, which its document knows nothing of")
    return SavedOutputs(document, truth, answers)


def _checked_truth(truth: NDArray[Any], probe: SavedProbe, output: OutputContract) -> NDArray[Any]:
    fits = truth.ndim == 2 or (truth.ndim > 0 and output.kind == "features")
    if not fits or truth.size == 0 or len(truth) != len(probe.pictures):
        raise ValueError(f"the truth of {output.name} has shape {truth.shape} for {len(probe.pictures)} pictures")
    if not np.isfinite(truth).all():
        raise ValueError(f"the truth of {output.name} holds numbers that are not finite")
    return truth.astype(np.float64)
