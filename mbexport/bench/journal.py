"""What a bench that is under way has measured so far, kept so that a killed one can go on where it stopped.

One file of lines a cell, ``<machine's folder>/.unfinished/<key>.jsonl``: a line is written and synced when its process
has ended, and the files are removed when the whole bench has. A line that was cut off in the middle is not read.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from mbexport.bench.plan import WorkerAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mbexport.bench.plan import Cell

FOLDER = ".unfinished"
_KEPT_S = 24 * 3600.0
"""Older than that, a machine may have been updated, moved or loaded otherwise: it is measured again."""


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    written: float
    """Seconds since 1970."""
    answer: WorkerAnswer


class Journal:
    """The unfinished cells of one machine."""

    def __init__(self, machine: Path) -> None:
        self._folder = machine / FOLDER

    def answers(self, cell: Cell) -> list[WorkerAnswer]:
        """What was measured of the cell in the last day."""
        path = self._path(cell)
        lines = path.read_bytes().splitlines() if path.is_file() else []
        found = [line for line in map(_parsed, lines) if line is not None]
        return [line.answer for line in found if 0 <= time.time() - line.written < _KEPT_S]

    def add(self, cell: Cell, answer: WorkerAnswer) -> None:
        """Keep an answer.

        Raises:
            OutputError: the folder cannot be written to.
        """
        data = b"\n" + msgspec.json.encode(_Line(written=time.time(), answer=answer)) + b"\n"
        with serde.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path(cell).open("ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())

    def forget(self, cells: Iterable[Cell]) -> None:
        """These are finished, and stand in their profiles. What is too old to be read goes with them."""
        for cell in cells:
            self._path(cell).unlink(missing_ok=True)
        for path in self._folder.glob("*.jsonl"):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others' cells are in it
            self._folder.rmdir()

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.key}.jsonl"


def _parsed(line: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return None  # cut off while it was written
