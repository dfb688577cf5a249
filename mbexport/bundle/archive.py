"""A bundle's file: a zip whose bytes follow from its members' names and contents alone.

Members lie one behind the other in the order of their names, stored without compression (weights hardly compress, and
deflate's bytes differ between versions of zlib), all of one date and mode. So two bundles of the same content are the
same file, and a file that is not what its members would be written as was altered or is hostile: hidden data, links,
overlapping or repeated members and zip bombs all fail the one comparison.
"""

from __future__ import annotations

import io
import re
import struct
import tempfile
import zipfile
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

from mbexport import serde
from mbexport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MOST_BYTES = 2_000_000_000
"""Of the whole file. From 2 GiB on a zip has other headers, and Python's writer begins with them 5% earlier."""
_MOST_MEMBERS = 4096
_LONGEST_NAME = 240
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.+@-]*[A-Za-z0-9_+@-])?"  # no dot at either end
_NAME = re.compile(rf"{_WORD}(/{_WORD})*")
_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that a zip can tell."""
_MODE = 0o100644
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR_SIGNATURE, _LOCATOR_BYTES = b"PK\x06\x07", 20
"""Of zip64's locator, which would stand right before the end record."""
_DIRECTORY_ENTRY_BYTES = 46
_CHUNK_BYTES = 2**20


def written(members: Mapping[str, bytes]) -> bytes:
    """The file's bytes.

    Args:
        members: name -> content; names are relative paths with forward slashes.

    Raises:
        BundleError: a name that could lead out of a folder, or more than a bundle holds.
    """
    _check_names(members, "a bundle")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in sorted(members):
            file.writestr(_entry(name), members[name])
    if buffer.tell() > MOST_BYTES:
        raise BundleError(f"a bundle holds at most {MOST_BYTES} bytes, not {buffer.tell()}; leave an artifact out")
    return buffer.getvalue()


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The members of a bundle, once it is sure that they are all there is in the file and that each is whole.

    Memory is bounded by what a directory of 4096 members takes; the file is read twice.

    Raises:
        BundleError: not a bundle, damaged, altered or hostile. The message names the member.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            file = _checked(path, stream, stack)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, NotImplementedError, RuntimeError) as error:
            raise BundleError(f"{path} is damaged: {error or type(error).__name__}") from error
        yield file


def _checked(path: Path, stream: IO[bytes], stack: ExitStack) -> zipfile.ZipFile:
    count, size = _checked_end(path, stream)
    file = stack.enter_context(zipfile.ZipFile(stream))
    _check_directory(path, file, count, size)
    _check_bytes(path, file, stream)
    return file


def unpack(file: zipfile.ZipFile, folder: Path) -> None:
    """Write every member of an opened bundle below ``folder``."""
    for info in file.infolist():
        target = folder / info.filename
        with serde.writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read(info))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system, entry.external_attr = 3, _MODE << 16  # as if on POSIX, wherever it is made
    return entry


def _check_names(names: Iterable[str], where: object) -> None:
    seen: set[str] = set()
    for name in names:
        if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
            raise BundleError(f"{where} must hold plain relative paths, not {name[:_LONGEST_NAME]!r}")
        if name.casefold() in seen:
            raise BundleError(f"{where} holds {name} twice")
        seen.add(name.casefold())
    for name in seen:
        if any(name[:at] in seen for at, character in enumerate(name) if character == "/"):
            raise BundleError(f"{where} holds {name}, whose folder is a file of it")
    if len(seen) > _MOST_MEMBERS:
        raise BundleError(f"{where} holds {len(seen)} members, more than the {_MOST_MEMBERS} that a bundle may have")


def _checked_end(path: Path, stream: IO[bytes]) -> tuple[int, int]:
    """How many members the last bytes announce, and the file's size, before anything else is read into memory."""
    size = stream.seek(0, io.SEEK_END)
    if size > MOST_BYTES:
        raise BundleError(f"{path} has {size} bytes, more than the {MOST_BYTES} that a bundle may have")
    if size < _END.size:
        raise BundleError(f"{path} is no bundle; make one with: mbexport bundle")
    stream.seek(size - _END.size)
    signature, disk, first_disk, here, count, length, start, comment = _END.unpack(stream.read(_END.size))
    if signature != _END_SIGNATURE:
        raise BundleError(f"{path} is no bundle, or was cut off or added to; make one with: mbexport bundle")
    stream.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    if stream.read(4) == _LOCATOR_SIGNATURE:  # zipfile would believe it more than the record that was checked here
        raise BundleError(f"{path} has a directory of another kind than a bundle's")
    if (disk, first_disk, comment) != (0, 0, 0) or here != count or start + length + _END.size != size:
        raise BundleError(f"{path} is damaged: its end record contradicts itself")
    if count > _MOST_MEMBERS or length > count * (_DIRECTORY_ENTRY_BYTES + _LONGEST_NAME):
        raise BundleError(f"{path} has a directory of {length} bytes for {count} members, more than a bundle may have")
    return count, size


def _check_directory(path: Path, file: zipfile.ZipFile, count: int, size: int) -> None:
    entries = file.infolist()
    if len(entries) != count:
        raise BundleError(f"{path} is damaged: its directory lists {len(entries)} members, its end record {count}")
    _check_names((entry.filename for entry in entries), path)
    for entry in entries:
        if entry.external_attr != _MODE << 16:
            raise BundleError(f"{path}: {entry.filename} is not a plain file")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise BundleError(f"{path}: {entry.filename} is compressed, which members of a bundle never are")
    if sum(entry.file_size for entry in entries) > size:
        raise BundleError(f"{path}: its members overlap")


def _check_bytes(path: Path, file: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Write the members anew, which checks the CRC of each, and compare with what is there."""
    with tempfile.TemporaryFile() as fresh:
        with zipfile.ZipFile(fresh, "w") as other:
            for entry in file.infolist():
                with file.open(entry) as source, other.open(_sized(entry), "w") as target:
                    while chunk := source.read(_CHUNK_BYTES):
                        target.write(chunk)
        at = _first_difference(stream, fresh)
        if at is not None:
            raise BundleError(f"{path} is damaged at byte {at}, in {_place(other, at)}")
    if [entry.filename for entry in file.infolist()] != sorted(file.namelist()):
        raise BundleError(f"{path} is no bundle: its members are not in order")


def _sized(entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
    fresh = _entry(entry.filename)
    fresh.file_size = entry.file_size
    return fresh


def _first_difference(one: IO[bytes], other: IO[bytes]) -> int | None:
    one.seek(0)
    other.seek(0)
    at = 0
    while True:
        left, right = one.read(_CHUNK_BYTES), other.read(_CHUNK_BYTES)
        if left != right:
            pairs = zip(left, right, strict=False)
            return at + next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
        if not left:
            return None
        at += len(left)


def _place(file: zipfile.ZipFile, at: int) -> str:
    """What lies at a byte of a bundle as it should be."""
    if at >= file.start_dir:
        return "the directory at its end"
    return next(f"what belongs to {entry.filename}" for entry in reversed(file.infolist()) if entry.header_offset <= at)
