"""Files and folders behind URLs, by fsspec: written whole or not at all, and never over something else."""

from __future__ import annotations

import atexit
import hashlib
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mbexport import serde
from mbexport.artifact import MANIFEST
from mbexport.errors import InputError, MbexportError, MissingDownloadError, MissingPackageError, OutputError
from mbexport.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

_URL = re.compile(r"([a-z][a-z0-9+.-]+):(/+)(.*)", re.DOTALL)
"""A path made of a URL has lost all slashes but one. Two letters at least: one is a drive of Windows."""
_HERE = {"file", "local"}
"""Kinds of URLs of this machine, which fsspec takes for one."""
_MOST_BYTES = 2 * 2**30
_CHUNK_BYTES = 2**20
_copies: dict[Path, str] = {}
"""Temporary folder -> what the user knows it by: the URL of what was copied there, up to its last part, or a bundle."""
_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oss"}
"""Where to make a folder is to make a bucket."""


def url_of(path: Path | str) -> str | None:
    """The URL that a command's argument is, or None where it is a path."""
    found = _URL.fullmatch(str(path))
    if found is None or Path(path).exists():
        return None
    kind, slashes, place = found.groups()
    if kind in _HERE:
        return f"file:///{unquote(place)}"
    return f"{kind}://{place}" if len(slashes) < len("///") else f"{kind}:///{place}"


def local_path(url: str) -> Path | None:
    """What a URL names on this machine; None for one of elsewhere."""
    whole = url_of(url)
    return Path(whole.removeprefix("file://")) if whole is not None and whole.startswith("file://") else None


def local(path: Path) -> Path:
    """``path`` itself, or a copy of what its URL names, which lasts as long as this process.

    A URL names a file, or an artifact's folder, of which its manifest and the files that this lists are copied.

    Raises:
        InputError: there is nothing, or no such kind of URL.
        MissingDownloadError: it cannot be reached.
        MissingPackageError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    url = url_of(path)
    if url is None:
        return path
    fs, place = filesystem(url)
    folder = Path(tempfile.mkdtemp(prefix="mbexport-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / PurePosixPath(place.rstrip("/")).name
    stands_for(folder, url.rstrip("/").rpartition("/")[0])
    with _reading(url):
        if is_file(fs, place):
            _copy(fs, place, target)
            return target
        if is_file(fs, f"{place}/{MANIFEST}"):
            return _copied_artifact(fs, place, target)
        parent = place.rstrip("/").rpartition("/")[0]
        if is_file(fs, parent):  # one artifact of a bundle: FILE/NAME
            _copies[folder] = _copies[folder].rpartition("/")[0]
            _copy(fs, parent, folder / PurePosixPath(parent).name)
            return folder / PurePosixPath(parent).name / target.name
    raise InputError(f"{url} is neither a file nor an artifact's folder")


def as_given(text: str) -> str:
    """A message with the URLs and bundles that the user gave in place of the copies of what they hold."""
    for folder, name in reversed(_copies.items()):  # what was unpacked of a copy is newer than the copy
        text = text.replace(str(folder), name)
    return text


def stands_for(folder: Path, name: str) -> None:
    """Let messages say ``name`` in place of a temporary folder."""
    _copies[folder] = name


def filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's filesystem, and the path in it.

    Raises:
        InputError: no such kind of URL.
        MissingPackageError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingPackageError("URLs are read and written by fsspec; pip install 'mbexport[remote]'") from error
    try:
        fs, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(f"{url} needs another package: {error}") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}; known are file, s3, gcs, http and others of fsspec's") from error
    return fs, place


def is_known(url: str) -> bool:
    """Whether fsspec knows of such URLs, though what it takes to read them may not be installed."""
    try:
        from fsspec.registry import known_implementations, registry
    except ImportError:
        return True
    protocol = url.partition(":")[0]
    return protocol in known_implementations or protocol in registry


def is_file(fs: Any, place: str) -> bool:
    """Asked so because ``isfile`` and ``exists`` of fsspec take every error for a no."""
    try:
        return bool(fs.info(place)["type"] == "file")
    except (FileNotFoundError, NotADirectoryError) as error:
        cause = error.__cause__  # HTTP's filesystem takes a server that does not answer for a missing file
        if cause is not None and (isinstance(cause, ConnectionError) or type(cause).__name__ == "ClientConnectorError"):
            raise cause from error
        return False


def sha256_of(fs: Any, place: str) -> str | None:
    """Of a file's bytes; None where there is none."""
    if not is_file(fs, place):
        return None
    digest = hashlib.sha256()
    with fs.open(place, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def names_under(fs: Any, place: str) -> set[str]:
    """Paths of all files in the folder; the empty one for a file; nothing where there is nothing."""
    fs.invalidate_cache()
    root = place.rstrip("/")
    if is_file(fs, root):
        return {""}
    return {name.removeprefix(f"{root}/") for name in fs.find(root)}


def put(fs: Any, source: Path, place: str) -> None:
    """Copy a file to its place in one step: until it is whole, whatever stood there before is what others read."""
    if "file" in _protocols(fs):  # fsspec's own way copies from another disk, which others can see
        serde.copy_atomic(source, Path(place))
        return
    parent = place.rpartition("/")[0]
    if not _protocols(fs) & _WITHOUT_FOLDERS:
        fs.makedirs(parent, exist_ok=True)
    with fs.transaction, source.open("rb") as own, fs.open(place, "wb") as stream:
        shutil.copyfileobj(own, stream, _CHUNK_BYTES)


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Turn what a filesystem raises into an :class:`OutputError` that names the URL."""
    try:
        yield
    except MbexportError:
        raise
    except Exception as error:  # each filesystem has errors of its own, and they are told as they come
        raise OutputError(f"cannot write {url}: {_told(error)}") from error


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except MbexportError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url} is not there") from error
    except Exception as error:  # each filesystem has errors of its own, and they are told as they come
        raise MissingDownloadError(f"cannot read {url}: {_told(error)}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def _copied_artifact(fs: Any, place: str, target: Path) -> Path:
    target.mkdir()
    _copy(fs, f"{place}/{MANIFEST}", target / MANIFEST)
    manifest = serde.decoded((target / MANIFEST).read_bytes(), Manifest)
    left = _MOST_BYTES
    for name in manifest.files:
        if PurePosixPath(name).name != name or name in {"", ".."}:
            raise InputError(f"{place}/{MANIFEST} names {name}, which is outside its folder")
        left = _copy(fs, f"{place}/{name}", target / name, left)
    return target


def _copy(fs: Any, place: str, target: Path, left: int = _MOST_BYTES) -> int:
    """How many bytes are left of those that may be read, whatever the other side says of its size."""
    with fs.open(place, "rb") as stream, target.open("wb") as own:
        while chunk := stream.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{place} has more than the {_MOST_BYTES} bytes that mbexport reads from a URL")
            own.write(chunk)
    return left
