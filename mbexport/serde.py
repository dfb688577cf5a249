"""JSON in and out, schema versions, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from mbexport.errors import DocumentError, NewerSchemaError, OutputError, SpecError

_UMASK = os.umask(0o077)  # can only be read by setting it: once, on import, before there are threads
os.umask(_UMASK)

_MOST_BYTES = 64 * 2**20
"""Of a document that is read: a thousand measured rows take 50 MB, and decoding takes many times its size."""

_ABANDONED_S = 86_400.0

T = TypeVar("T")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def json_bytes(value: object) -> bytes:
    """``value`` as indented UTF-8 JSON with a final newline; not-finite floats become null."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decoded(data: bytes, kind: type[T]) -> T:
    """A value that :func:`json_bytes` wrote in this very version."""
    return msgspec.json.decode(data, type=kind)


def read_document(path: Path, kind: type[T], version: int, upgrades: Mapping[int, Upgrade] | None = None) -> T:
    """Read a versioned JSON document, upgrading it from older schema versions.

    Args:
        path: the file.
        kind: the msgspec type that describes schema ``version``.
        version: the newest schema version that this release knows.
        upgrades: from a version to the function that makes the next one.

    Raises:
        DocumentError: not JSON, not of this kind, or (NewerSchemaError) of a newer schema.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DocumentError(f"{path} has more than the {_MOST_BYTES} bytes that a document may have")
        data = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from error
    return parse_document(data, path, kind, version, upgrades)


def parse_document(
    data: bytes, path: Path, kind: type[T], version: int, upgrades: Mapping[int, Upgrade] | None = None
) -> T:
    """The same for a document's bytes, which came from ``path``."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DocumentError(f"{path} is not valid JSON ({error})") from error
    found = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise DocumentError(f"{path} has no schema_version; it was not written by mbexport")
    if found > version:
        raise NewerSchemaError(
            f"{path} has schema version {found}; this mbexport reads up to {version}. Install a newer mbexport"
        )
    try:
        for step in range(found, version):
            document = (upgrades or {})[step](document)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DocumentError(f"{path} does not fit schema version {found}: {error!r}") from error
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, SpecError) as error:
        raise DocumentError(f"{path} does not fit its schema: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals into an :class:`OutputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another place or make room"
        ) from error


_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")


def refuse_unwritable(folder: Path) -> None:
    """Try to write where ``folder`` is or will be, and leave nothing behind.

    Raises:
        OutputError: it cannot be written to, or is a URL.
    """
    if _URL.match(str(folder)) and not Path(folder.parts[0]).exists():
        raise OutputError(f"{folder} is a URL; write to a place here, and bring it there with: mbexport publish")
    with writing(folder):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(bytes(4096))
            probe.flush()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary file beside it, fsync, rename.

    Raises:
        OutputError: the place cannot be written to, or the disk is full.
    """
    _write_atomic(path, lambda file: file.write(data))


def copy_atomic(source: Path, path: Path) -> None:
    """The same of another file's bytes, of which few are in memory at once."""
    with source.open("rb") as stream:
        _write_atomic(path, lambda file: shutil.copyfileobj(stream, file))


def _write_atomic(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    with writing(path):
        made = _make_parents(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_UMASK)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            _remove_empty(made)
            raise
        _fsync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place on success and vanishes on any error.

    A folder that stood at ``target`` is moved aside, replaced and removed; a stop between the two renames brings it
    back.
    """
    with writing(target):
        made = _make_parents(target)
        remove_abandoned(target.parent, f".{glob.escape(target.name)}.new-*")
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.new-"))
    try:
        yield fresh
        with writing(target):
            fresh.chmod(0o777 & ~_UMASK)
            for path in fresh.rglob("*"):
                if path.is_dir():
                    _fsync_folder(path)
                else:
                    sync(path)
            _fsync_folder(fresh)
            _swap_in(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if not target.exists():
            _remove_empty(made)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove folders that a killed process left half made: those that nobody has touched for a day."""
    for left in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # its process has just ended
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


def _make_parents(path: Path) -> list[Path]:
    """Make the folders above ``path``; those that were missing, innermost first."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # somebody else has put something there by now
            folder.rmdir()


def _swap_in(fresh: Path, target: Path) -> None:
    """Put ``fresh`` in the place of ``target``. Wherever a signal strikes, the old or the new folder stands there."""
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old-"))
    old = aside / target.name
    try:
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        _fsync_folder(target.parent)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    with path.open("r+b") as file:  # Windows syncs a writable handle only
        os.fsync(file.fileno())


def _fsync_folder(path: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
