"""What a bench that is under way has measured so far, kept so that a killed one can go on where it stopped.

One file of lines a cell, ``<machine's folder>/.unfinished/<key>.jsonl``: a line is written and synced when its process
has ended, and the files are removed when the whole bench has. A line that was cut off in the middle is not read.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from mbexport.bench.budget import measured_s
from mbexport.bench.plan import WorkerAnswer
from mbexport.bench.timing import SECOND_NS, Limits
from mbexport.profile import ColdStart

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mbexport.bench.plan import Cell

FOLDER = ".unfinished"
_KEPT_S = 24 * 3600.0
"""Older than that, a machine may have been updated, moved or loaded otherwise: it is measured again."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    written: float
    """Seconds since 1970."""
    mbexport: str
    """The version that measured. The engine's stands in the answer."""


class KeptProcess(_Line, frozen=True, kw_only=True):
    """A process that measured."""

    limits: Limits
    """What its bench planned for each process. On a busy machine its share of a budget may have been less."""
    answer: WorkerAnswer


class KeptStarts(_Line, frozen=True, kw_only=True):
    """Processes that found what the engine kept of the model."""

    starts: list[ColdStart]


class Journal:
    """The unfinished cells of one machine. What is a day old, or of another mbexport, is as good as not there."""

    def __init__(self, machine: Path) -> None:
        self._folder = machine / FOLDER

    def processes(self, cell: Cell, wanted: Limits) -> list[KeptProcess]:
        """Those that count for a bench that plans ``wanted`` for each process: of a bench that planned the same, which
        now goes on, or with no less of seconds and samples than that.
        """
        found = [line for line in self._lines(cell) if isinstance(line, KeptProcess)]
        return [line for line in found if line.limits == wanted or _meets(line.answer, wanted)]

    def starts(self, cell: Cell) -> list[ColdStart]:
        """The last ones, or none."""
        found = [line.starts for line in self._lines(cell) if isinstance(line, KeptStarts)]
        return found[-1] if found else []

    def add(self, cell: Cell, limits: Limits, answer: WorkerAnswer) -> None:
        """Keep what a process answered in a bench that planned ``limits``.

        Raises:
            OutputError: the folder cannot be written to.
        """
        self._append(cell, KeptProcess(written=time.time(), mbexport=_version(), limits=limits, answer=answer))

    def add_starts(self, cell: Cell, starts: Sequence[ColdStart]) -> None:
        """Keep all starts of a cell. Raises as :meth:`add` does."""
        self._append(cell, KeptStarts(written=time.time(), mbexport=_version(), starts=[*starts]))

    def forget(self, cells: Iterable[Cell]) -> None:
        """These are finished, and stand in their profiles. What is too old to be read goes with them."""
        for cell in cells:
            self._path(cell).unlink(missing_ok=True)
        for path in self._folder.glob("*.jsonl"):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others' cells are in it
            self._folder.rmdir()

    def _lines(self, cell: Cell) -> list[KeptProcess | KeptStarts]:
        path = self._path(cell)
        lines = path.read_bytes().splitlines() if path.is_file() else []
        found = [line for line in map(_parsed, lines) if line is not None]
        return [line for line in found if 0 <= time.time() - line.written < _KEPT_S and line.mbexport == _version()]

    def _append(self, cell: Cell, line: KeptProcess | KeptStarts) -> None:
        data = b"\n" + msgspec.json.encode(line) + b"\n"
        with serde.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path(cell).open("ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.key}.jsonl"


def _meets(answer: WorkerAnswer, wanted: Limits) -> bool:
    return wanted.are_met(round(measured_s(answer) * SECOND_NS), len(answer.replicate.samples_ns))


def _version() -> str:
    return importlib.metadata.version("mbexport")


def _parsed(line: bytes) -> KeptProcess | KeptStarts | None:
    try:
        return msgspec.json.decode(line, type=KeptProcess | KeptStarts)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return None  # cut off while it was written, or of an mbexport that kept other things
