"""A bundle, an artifact or a serving layout -> a URL."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from mbexport import remote
from mbexport.artifact import MANIFEST, read_artifact
from mbexport.bundle.layouts.write import files_of
from mbexport.bundle.unpack import unpacked
from mbexport.errors import InputError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

_LAST = (MANIFEST, "config.json", "config.pbtxt", "contract.json")
"""What readers begin with: there only once all the rest is, and of these the first come last."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at a URL now."""

    url: str
    files: list[str]
    """Under the URL; empty for a single file."""
    sha256: str | None
    """Of a single file."""
    was_there: bool
    """Whether all of it stood there already."""


def publish(source: Path, url: str, *, force: bool = False) -> Published:
    """Copy a bundle or a folder, so that nobody ever reads a part of it.

    A file takes its place in one step. Of a folder the file that readers begin with comes last; where ``force``
    replaces another content, it goes first. Files of others are never removed.

    Args:
        source: a bundle, an artifact's folder or a layout's.
        url: its place; one that ends with a slash gets the source's name behind it.
        force: replace another content.

    Raises:
        InputError: the source is none of these or damaged, or there is no such kind of URL.
        OutputError: something else stands there, or the place cannot be written to.
        MissingPackageError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    sources = _files(source)
    if not url:
        raise InputError("where to? give a URL such as s3://models/small.zip")
    whole = target_url(source, url)
    fs, place = remote.filesystem(remote.url_of(whole) or whole)
    wanted = {name: _sha256(path) for name, path in sources.items()}
    with remote.writing(whole):
        _refuse_others(remote.names_under(fs, place), set(wanted), whole)
        there = {name: remote.sha256_of(fs, _under(place, name)) for name in wanted}
        stale = [name for name, sha256 in there.items() if sha256 not in {None, wanted[name]}]
        if stale and not force:
            raise OutputError(
                f"{_under(whole, stale[0])} holds something else; replace it with --force (force = true in a pipeline)"
            )
        missing = [name for name in wanted if there[name] != wanted[name] or (stale and _begins(name))]
        if "" not in wanted:
            for name in sorted(missing, key=_order):
                if _begins(name) and there[name] is not None:
                    fs.rm_file(_under(place, name))
        for name in sorted(missing, key=_order, reverse=True):
            remote.put(fs, sources[name], _under(place, name))
    names = [name for name in wanted if name]
    return Published(url=whole, files=names, sha256=wanted.get(""), was_there=not missing)


def target_url(source: Path, url: str) -> str:
    """Where ``source`` goes: a URL that ends with a slash is the folder that it comes to lie in."""
    return f"{url}{source.name}" if url.endswith("/") else url


def _files(source: Path) -> dict[str, Path]:
    """Their paths under the URL; a file alone has none. What is damaged is not shipped."""
    if source.is_file():
        with unpacked(source):
            return {"": source}
    if not source.is_dir():
        raise InputError(f"{source} is not there; make it with: mbexport bundle")
    if (source / MANIFEST).is_file():
        return {name: source / name for name in (*read_artifact(source).manifest.files, MANIFEST)}
    return files_of(source)


def _refuse_others(there: set[str], wanted: set[str], url: str) -> None:
    """Beside a folder's files nothing else may stand, or readers would take it for a part of it."""
    others = sorted(there - wanted)
    if others:
        what = _under(url, others[0]) if others[0] else f"{url}, a file,"
        raise OutputError(f"{what} stands there and is no part of what is published; remove it or choose another place")


def _under(place: str, name: str) -> str:
    return f"{place.rstrip('/')}/{name}" if name else place


def _begins(name: str) -> bool:
    return name.rpartition("/")[2] in _LAST


def _order(name: str) -> tuple[int, str]:
    """The last to come first."""
    file = name.rpartition("/")[2]
    return (_LAST.index(file) if file in _LAST else len(_LAST), name)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
