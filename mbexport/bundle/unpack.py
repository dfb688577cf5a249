"""A bundle's file -> a folder, and the artifacts in it, once all of it is sure to be what its manifest says."""

from __future__ import annotations

import hashlib
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import serde
from mbexport.artifact import MANIFEST, Artifact, read_artifact
from mbexport.bundle import archive, manifest
from mbexport.bundle.graphs import model_names, refuse_unsafe
from mbexport.bundle.manifest import BundleManifest
from mbexport.errors import BundleError
from mbexport.remote import stands_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zipfile import ZipFile

_MOST_MANIFEST_BYTES = 4 * 2**20
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Unpacked:
    """A bundle in a folder."""

    root: Path
    manifest: BundleManifest
    artifacts: list[Artifact]
    """In the manifest's order."""


@contextmanager
def unpacked(path: Path) -> Iterator[Unpacked]:
    """The bundle in a temporary folder, which is gone afterwards.

    Raises:
        ArtifactError: an artifact in it is not whole.
        BundleError: damaged, altered or hostile; the message names the member.
        DocumentError: a manifest that is malformed or of a newer schema version.
    """
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        root = Path(folder)
        stands_for(root, str(path))
        with archive.opened(path) as file:
            told = _manifest(path, file)
            _check_listed(path, set(file.namelist()), told)
            archive.unpack(file, root)
        for name, digest in told.files.items():
            if hashlib.sha256((root / name).read_bytes()).hexdigest() != digest:
                raise BundleError(f"{path}: {name} is not the file that {manifest.BUNDLE} lists")
        yield Unpacked(root, told, _artifacts(path, root, told))


def _manifest(path: Path, file: ZipFile) -> BundleManifest:
    if manifest.BUNDLE not in file.namelist():
        raise BundleError(f"{path} holds no {manifest.BUNDLE}, so it is no bundle; make one with: mbexport bundle")
    if file.getinfo(manifest.BUNDLE).file_size > _MOST_MANIFEST_BYTES:
        raise BundleError(f"{path}: {manifest.BUNDLE} is larger than the {_MOST_MANIFEST_BYTES} bytes that it may have")
    data = file.read(manifest.BUNDLE)
    return serde.parse_document(data, path / manifest.BUNDLE, BundleManifest, manifest.SCHEMA_VERSION)


def _check_listed(path: Path, found: set[str], told: BundleManifest) -> None:
    """Every member is listed, every listed file is there, and whatever the manifest names is one of them."""
    listed = set(told.files) | {manifest.BUNDLE}
    if missing := sorted(listed - found):
        raise BundleError(f"{path} lacks {missing[0]}, which its manifest lists")
    if extra := sorted(found - listed - {manifest.SIGNATURE}):
        raise BundleError(f"{path} holds {extra[0]}, which its manifest does not list")
    if not told.artifacts:
        raise BundleError(f"{path} holds no artifact")
    named = [*(one.model for one in told.serving), *(one.picture for one in told.golden)]
    for entry in told.artifacts:
        if not _SLUG.fullmatch(entry.slug) or entry.path != f"{manifest.ARTIFACTS}/{entry.slug}":
            raise BundleError(f"{path}: {manifest.BUNDLE} names {entry.path!r}, which is no member")
        named.append(f"{entry.path}/{MANIFEST}")
    if outside := next((name for name in named if name not in told.files), None):
        raise BundleError(f"{path}: {manifest.BUNDLE} names {outside!r}, which is no member")


def _artifacts(path: Path, root: Path, told: BundleManifest) -> list[Artifact]:
    opened = []
    for entry in told.artifacts:
        artifact = read_artifact(root / entry.path)
        found = (artifact.manifest.slug, artifact.sha256, artifact.manifest.precision)
        if found != (entry.slug, entry.sha256, entry.precision):
            raise BundleError(f"{path}: {entry.path} is not the artifact that {manifest.BUNDLE} describes")
        refuse_unsafe(artifact)
        opened.append(artifact)
    checked = {
        f"{entry.path}/{name}" for entry, one in zip(told.artifacts, opened, strict=True) for name in model_names(one)
    }
    if unchecked := next((one.model for one in told.serving if one.model not in checked), None):
        raise BundleError(f"{path}: {manifest.BUNDLE} serves {unchecked}, which no artifact names as a model")
    return opened
