"""Sets of pictures: labelled ones (a folder a class, or a CSV of path and label), and those that a user names."""

from __future__ import annotations

import csv
import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.errors import InputError
from mbexport.images import SUFFIXES, is_picture
from mbexport.labels import LabelFinder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mbexport.labels import Label


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture and the number of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class LabelledSet:
    """Pictures ordered by folder and name, or as the CSV lists them."""

    pictures: list[LabelledPicture]
    note: str | None = None
    """How folders were matched with classes, where that could be wrong."""


def labelled_set(images: Path, classes: int, labels: Sequence[Label] | None) -> LabelledSet:
    """Find the pictures and what they show; nothing is decoded.

    A folder holds one folder a class, whose pictures may lie deeper. Its name is a label's id or name; only if no name
    fits any label, and there are as many folders as classes, are they taken in sorted order. A file is a CSV whose rows
    are a path, relative to the CSV's folder or absolute, and a label: an id, a name, or a class's number. A first row
    that names the columns ``path`` and ``label`` is a header; there may be other columns then.

    Args:
        images: a folder or a CSV file.
        classes: how many classes the network tells apart.
        labels: theirs, in the order of the classifier's numbers; None where they are not known.

    Raises:
        InputError: no such place, no pictures, or a folder or line that fits no class.
    """
    known = _Classes(classes, labels)
    try:
        if images.is_dir():
            found = _from_folders(images, known)
        elif images.is_file():
            found = LabelledSet(list(_from_csv(images, known)))
        else:
            raise InputError(f"{images} does not exist; give a folder with one folder a class, or a CSV of path,label")
    except OSError as error:
        raise InputError(f"{error.filename or images} cannot be read: {error.strerror}") from error
    if not found.pictures:
        raise InputError(f"{images} holds no pictures ({' '.join(sorted(SUFFIXES))})")
    return found


def names_classes(images: Path, classes: int, labels: Sequence[Label] | None) -> bool:
    """Whether a folder's folders are named as classes are, or are as many as there are classes.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        folders = [path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{images} cannot be read: {error.strerror}") from error
    finder = LabelFinder(labels or ())
    return any(finder.find(name) for name in folders) or (bool(folders) and len(folders) == classes)


class _Classes:
    """The network's classes."""

    def __init__(self, count: int, labels: Sequence[Label] | None) -> None:
        self.count = count
        self._has_labels = labels is not None
        self._finder = LabelFinder(labels or ())

    def find(self, text: str) -> list[int]:
        """The classes that a label's id or name stands for."""
        return self._finder.find(text)

    def find_number(self, text: str) -> list[int]:
        is_number = text.isascii() and text.isdecimal() and len(text) < 10
        return [int(text)] if is_number and int(text) < self.count else []

    def require_one(self, match: list[int], what: str) -> int:
        """The one class that fits ``what``."""
        if len(match) > 1:
            raise InputError(f"{what} is the name of {len(match)} classes; use the id of one of them")
        if not match:
            mend = (
                "use the ids or names of the artifact's labels.json"
                if self._has_labels
                else "the artifact has no labels, so give a CSV of path and class number, or one folder for each class"
            )
            raise InputError(f"{what} fits none of the network's {self.count} classes; {mend}")
        return match[0]


def _from_folders(images: Path, known: _Classes) -> LabelledSet:
    folders = sorted(path for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"{images} holds no folders; one folder a class is needed, or a CSV of path and label")
    matches = [known.find(folder.name) for folder in folders]
    note = None
    if not any(matches) and len(folders) == known.count:
        matches = [[index] for index in range(known.count)]
        note = (
            "no folder is named as a label, so the folders were taken as the classes in sorted order: "
            f"{folders[0].name} is class 0, {folders[-1].name} is class {known.count - 1}"
        )
    pairs = zip(folders, matches, strict=True)
    numbered = [(folder, known.require_one(match, f"folder {folder}")) for folder, match in pairs]
    return LabelledSet([LabelledPicture(path, index) for folder, index in numbered for path in _below(folder)], note)


def _below(folder: Path) -> Iterator[Path]:
    """The pictures under a folder, sorted. Links to folders are not followed, so that none leads back."""
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from sorted(path for name in files if is_picture(path := Path(place, name)))


def _raise(error: OSError) -> None:
    raise error


def _from_csv(file: Path, known: _Classes) -> Iterator[LabelledPicture]:
    for where, path, label in _listed(file):
        index = known.require_one(known.find(label) or known.find_number(label), f"{where} label {label!r}")
        yield LabelledPicture(path, index)


def _listed(file: Path) -> Iterator[tuple[str, Path, str]]:
    """Where each picture stands in a CSV, its file, and its label."""
    path_at, label_at, columns = 0, 1, 2
    for line, row in _rows(file):
        names = [cell.lower() for cell in row]
        if line == 1 and {"path", "label"} <= set(names):
            path_at, label_at, columns = names.index("path"), names.index("label"), len(row)
            continue
        where = f"{file}, line {line}:"
        if len(row) != columns:
            raise InputError(f"{where} {columns} columns are expected (path,label), not {len(row)}")
        yield where, file.parent / row[path_at], row[label_at]


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not empty."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, strict=True)
            for row in rows:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield rows.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no CSV of path and label in UTF-8: {error}") from error


def take_evenly(pictures: Sequence[LabelledPicture], limit: int | None) -> list[LabelledPicture]:
    """At most ``limit`` pictures, spread evenly over the classes, in their old order.

    The first of every class come before the second of any. Where a round cannot be had whole, the classes that give one
    more are spread evenly too.

    Raises:
        InputError: a limit below one.
    """
    if limit is None:
        return list(pictures)
    if limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for position, each in enumerate(pictures):
        count = seen.get(each.label, 0)
        seen[each.label] = count + 1
        if count == len(rounds):
            rounds.append([])
        rounds[count].append(position)
    taken: list[int] = []
    for turn in rounds:
        room = min(limit - len(taken), len(turn))
        taken += [turn[place * len(turn) // room] for place in range(room)]
    return [pictures[position] for position in sorted(taken)]


def some_pictures(folder: Path, limit: int) -> list[Path]:
    """At most ``limit`` pictures under a folder, at any depth, spread evenly over all of them.

    Raises:
        InputError: no folder, no pictures, or a limit below one.
    """
    if limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with pictures")
    try:
        found = list(_below(folder))
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(f"{folder} holds no pictures ({' '.join(sorted(SUFFIXES))})")
    count = min(limit, len(found))
    return [found[place * len(found) // count] for place in range(count)]


def count_pictures(images: Path) -> int:
    """How many pictures a folder holds at any depth, or a CSV lists that are there.

    Raises:
        InputError: no such place, or one that cannot be read.
    """
    if images.is_file():
        return sum(path.is_file() for _, path, _ in _listed(images))
    if not images.is_dir():
        raise InputError(f"{images} does not exist; give a folder with pictures, or a CSV of path,label")
    try:
        return sum(1 for _ in _below(images))
    except OSError as error:
        raise InputError(f"{error.filename or images} cannot be read: {error.strerror}") from error


def named_pictures(arguments: Iterable[str]) -> list[Path]:
    """The files that a user means by files, folders (their own pictures, sorted) and patterns; each once.

    Raises:
        InputError: a folder or pattern with no pictures.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _named(argument)))


def _named(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if is_picture(file))
        if not found:
            raise InputError(f"{path} holds no pictures ({' '.join(sorted(SUFFIXES))})")
        return found
    if path.exists() or not glob.has_magic(argument):
        return [path]  # one that is missing is named when it is read
    found = sorted(file for name in glob.glob(argument) if is_picture(file := Path(name)))  # noqa: PTH207 - it may be absolute
    if not found:
        raise InputError(f"no picture fits {argument}")
    return found
