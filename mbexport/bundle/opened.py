"""A bundle where a command takes an artifact: unpacked for as long as the process runs."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mbexport.artifact import read_artifact
from mbexport.errors import BundleError
from mbexport.remote import local

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact


def open_artifact(path: Path) -> Artifact:
    """An artifact's folder, a bundle's file (its first artifact), or one artifact of a bundle, as ``FILE/NAME``;
    here or behind a URL.

    Raises:
        ArtifactError: not a folder, not an artifact, a file missing, altered, or named outside the folder.
        BundleError: a file that is no whole bundle, or one without an artifact of that name.
        DocumentError: a manifest that is malformed or of a newer schema version.
        MissingError: a URL that cannot be reached, or what it takes is not installed.
    """
    path = local(path)
    if path.is_file():
        return _unpacked(path, None)
    if path.parent.is_file():
        return _unpacked(path.parent, path.name)
    return read_artifact(path)


def open_artifacts(path: Path) -> list[Artifact]:
    """The same, and of a bundle's file all artifacts."""
    path = local(path)
    return list(_all(path).values()) if path.is_file() else [open_artifact(path)]


def _all(path: Path) -> dict[str, Artifact]:
    from mbexport.bundle.unpack import unpacked

    stack = ExitStack()
    found = {one.manifest.slug: one for one in stack.enter_context(unpacked(path)).artifacts}
    atexit.register(stack.close)
    return found


def _unpacked(path: Path, slug: str | None) -> Artifact:
    found = _all(path)
    wanted = next(iter(found)) if slug is None else slug
    if wanted not in found:
        raise BundleError(f"{path} holds no artifact {wanted}, only {', '.join(found)}")
    return found[wanted]
