"""What was made once is not made again: folders, by a digest of all that went into them.

``<root>/entries/<digest>/`` holds ``entry.json`` and the files that it lists. An entry is made elsewhere and renamed
into its place, so it is whole or not there, and a lock of its own keeps other processes from making it meanwhile.
Digests are checked before anything is handed out, and what is handed out is a copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import serde
from mbexport.errors import CacheError, DocumentError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Make = Callable[[Path], Mapping[str, Any]]

VARIABLE = "MBEXPORT_CACHE"
SCHEMA_VERSION = 1
_ENTRY = "entry.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """``entry.json``: what was made, and of what."""

    schema_version: int = SCHEMA_VERSION
    kind: str
    inputs: dict[str, Any]
    """All that the content depends on; the folder's name is the digest of this and ``kind``."""
    files: dict[str, str]
    """Name -> sha256."""
    told: dict[str, Any]
    """What was said when it was made, beside the files."""
    seal: str = ""
    """Digest of all the rest."""


@dataclass(frozen=True)
class Fetched:
    """What became of a wish."""

    was_there: bool
    told: Mapping[str, Any]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as it lies in the cache."""

    digest: str
    kind: str | None
    """None where ``entry.json`` is damaged."""
    inputs: dict[str, Any]
    size_bytes: int
    used_s: float
    """When it was used last, in seconds since the epoch."""


def cache_root() -> Path:
    """``MBEXPORT_CACHE``, else the system's place for caches."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("mbexport", appauthor=False)


@dataclass(frozen=True)
class Cache:
    """A folder of entries."""

    root: Path
    tell: Callable[[str], None] = lambda _message: None
    """Told of entries that are damaged."""
    making: Path | None = None
    """Where entries are made, in ``root``; a folder that all processes share by default."""

    def fetch(self, kind: str, inputs: Mapping[str, Any], target: Path, make: Make) -> Fetched:
        """Bring an entry's files to the folder ``target``, which is replaced; make them first where nobody has.

        Args:
            kind: of what is made.
            inputs: all that it depends on, in JSON's types.
            target: a folder.
            make: fills an empty folder, in one process alone of all that want the same, and says what is to be told.

        Raises:
            CacheError: the cache cannot be written to.
            OutputError: ``target`` cannot be written to.
        """
        digest = digest_of(kind, inputs)
        with self._locked(digest):
            entry = self._whole(digest)
            was_there = entry is not None
            if entry is None:
                entry = self._made(digest, kind, inputs, make)
            with serde.atomic_folder(target) as fresh, serde.writing(target):
                for name in entry.files:
                    shutil.copyfile(self._folder(digest) / name, fresh / name)
            with _writing(self.root):
                os.utime(self._folder(digest) / _ENTRY)
        return Fetched(was_there, entry.told)

    def look(self, digest: str) -> Path | None:
        """The folder of an entry, if there is one; what it holds is not checked."""
        folder = self._folder(digest)
        return folder if folder.is_dir() else None

    def entries(self) -> list[Kept]:
        """Every entry, the one used last first. Contents are not checked."""
        if self.root.exists() and not self.root.is_dir():
            raise CacheError(f"the cache {self.root} is a file; name a folder with {VARIABLE}")
        folders = (self.root / "entries").glob("*") if self.root.is_dir() else ()
        return sorted((kept for folder in folders if (kept := _kept(folder))), key=lambda kept: -kept.used_s)

    def prune(self, most_bytes: int) -> list[Kept]:
        """Remove what is damaged or was left half made, and the entries longest unused until the rest fits.

        Returns:
            The entries that were removed.

        Raises:
            CacheError: the cache cannot be written to.
        """
        self.forget_abandoned()
        removed, left_bytes = [], 0
        for kept in self.entries():
            if kept.kind is not None and left_bytes + kept.size_bytes <= most_bytes:
                left_bytes += kept.size_bytes
                continue
            with self._locked(kept.digest):
                again = _kept(self._folder(kept.digest))
                if again is None or again.used_s != kept.used_s:  # another process removed, used or mended it
                    continue
                self._remove(kept.digest)
            removed.append(kept)
        return removed

    def _folder(self, digest: str) -> Path:
        return self.root / "entries" / digest

    @contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        import filelock

        with _writing(self.root):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / "locks" / f"{digest}.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _whole(self, digest: str) -> Entry | None:
        """The entry, where it is there and all of its files are what they were."""
        folder = self._folder(digest)
        if not folder.exists():
            return None
        try:
            entry = serde.read_document(folder / _ENTRY, Entry, SCHEMA_VERSION)
            wrong = _ENTRY if entry.seal != _seal(entry) else _altered(folder, entry)
        except (DocumentError, OSError) as error:
            wrong = f"{_ENTRY} ({error})"
        if wrong is None:
            return entry
        self.tell(f"the cache's entry {digest[:12]} is damaged ({wrong}); it is made again")
        self._remove(digest)
        return None

    def _made(self, digest: str, kind: str, inputs: Mapping[str, Any], make: Make) -> Entry:
        with _writing(self.root):
            making = self.making or self.root / "making"
            making.mkdir(exist_ok=True)
            (self.root / "entries").mkdir(exist_ok=True)
            fresh = Path(tempfile.mkdtemp(dir=making, prefix=f"{digest[:12]}-"))
        try:
            told = make(fresh)
            with _writing(self.root):
                files = {path.name: _sha256(path) for path in sorted(fresh.iterdir())}
                entry = Entry(kind=kind, inputs=_plain(inputs), files=files, told=_plain(told))
                entry = msgspec.structs.replace(entry, seal=_seal(entry))
                serde.write_atomic(fresh / _ENTRY, serde.json_bytes(entry))
                for name in files:
                    serde.sync(fresh / name)
                fresh.rename(self._folder(digest))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return entry

    def _remove(self, digest: str) -> None:
        """Out of its place at once; a stop in the middle leaves nothing that looks like an entry."""
        with _writing(self.root):
            (self.root / "making").mkdir(exist_ok=True)
            aside = Path(tempfile.mkdtemp(dir=self.root / "making", prefix="removed-"))
            self._folder(digest).rename(aside / "entry")
            shutil.rmtree(aside)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for temporary files; what a kill leaves in it goes with what else was abandoned.

        Raises:
            CacheError: the cache cannot be written to.
        """
        with _writing(self.root):
            (self.root / "making").mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.root / "making", prefix="work-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def forget_abandoned(self) -> None:
        """Remove what killed processes left half made, a day after."""
        with _writing(self.root):
            serde.remove_abandoned(self.root / "making", "*")


def digest_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """The name of an entry."""
    return _digest([kind, _plain(inputs)])


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read again."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return found


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _seal(entry: Entry) -> str:
    return _digest([entry.kind, entry.inputs, entry.files, entry.told])


def _altered(folder: Path, entry: Entry) -> str | None:
    """The first file that is not what it was."""
    return next((name for name, sha256 in entry.files.items() if _sha256(folder / name) != sha256), None)


def _kept(folder: Path) -> Kept | None:
    """None where another process has just removed it, and of what is no folder."""
    try:
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        used_s = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        entry = serde.read_document(folder / _ENTRY, Entry, SCHEMA_VERSION)
    except DocumentError:
        return Kept(digest=folder.name, kind=None, inputs={}, size_bytes=size_bytes, used_s=used_s)
    return Kept(digest=folder.name, kind=entry.kind, inputs=entry.inputs, size_bytes=size_bytes, used_s=used_s)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, OutputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CacheError(f"the cache {root} cannot be used: {reason}; name another with {VARIABLE}") from error
