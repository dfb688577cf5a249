"""Artifacts and what was found of them -> one file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import hardware, serde
from mbexport.artifact import MANIFEST
from mbexport.bundle import archive, manifest
from mbexport.bundle.card import card
from mbexport.bundle.evidence import StoredValidation, evidence_members, profiles_of
from mbexport.bundle.golden import golden_members
from mbexport.bundle.graphs import refuse_unsafe
from mbexport.bundle.manifest import BundledArtifact, BundleManifest
from mbexport.bundle.sbom import require_cyclonedx, sbom
from mbexport.bundle.serving import servings
from mbexport.errors import InputError, OutputError, UnprovenError
from mbexport.runtimes import engine_versions
from mbexport.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.profile import LatencyProfile


@dataclass(frozen=True)
class Contents:
    """What a bundle is made of; the maps' keys are artifacts' slugs."""

    artifacts: Sequence[Artifact]
    """The first names the bundle and is what it serves unless another was found to be better."""
    validations: Mapping[str, StoredValidation]
    profiles: Mapping[str, Mapping[str, LatencyProfile]]
    """By machine."""


class BundleReport(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle just written."""

    bundle: str
    sha256: str
    size_bytes: int
    artifacts: list[BundledArtifact]
    files: int
    signed: bool


def bundle(
    artifacts: Sequence[Artifact],
    out: Path,
    targets: Sequence[str],
    *,
    profiles: Sequence[Path] = (),
    key: Path | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> BundleReport:
    """Validate the artifacts here, and write them with their evidence to ``out``.

    Args:
        artifacts: one network, or siblings in other precisions; the first names the bundle.
        out: the file.
        targets: what to validate on.
        profiles: folders whose profiles of these artifacts travel along, from any machine.
        key: an elliptic curve's private key in PEM, to sign with.
        threads: for each engine.
        progress: told what is being done.

    Raises:
        UnprovenError: an artifact fails its validation; nothing is written.
        BundleError: a graph that nobody could open as a part of a bundle.
        InputError: no artifact, or two of one name.
        MissingPackageError: the extra ``bundle`` or ``sign`` is not installed.
        OutputError: the place cannot be written to.
    """
    tell = progress or (lambda _message: None)
    refuse_names(artifacts)
    refuse_place(out, [*(artifact.path for artifact in artifacts), *([key] if key else [])], searched=profiles)
    _refuse_missing(key)
    for artifact in artifacts:
        refuse_unsafe(artifact)
    validations = {artifact.manifest.slug: prove(artifact, targets, threads, tell) for artifact in artifacts}
    measured = {artifact.manifest.slug: profiles_of(artifact, profiles) for artifact in artifacts}
    tell("bundle")
    return write(Contents(artifacts, validations, measured), out, key)


def refuse_place(out: Path, kept: Iterable[Path], searched: Iterable[Path] = ()) -> None:
    """Before the minutes that it takes.

    Args:
        out: the bundle's file.
        kept: files and folders that it is made of.
        searched: folders, some of whose files it is made of; an earlier bundle among them may be replaced.

    Raises:
        OutputError: it is a folder or a URL, cannot be written to, or would lie over what it is made of.
    """
    serde.refuse_unwritable(out.parent)
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file")
    in_the_way = out.is_file() and not zipfile.is_zipfile(out)
    for each in (*kept, *(searched if in_the_way else ())):
        if out.resolve().is_relative_to(each.resolve()):
            raise OutputError(f"{out} would lie over {each}, which the bundle is made of; choose another place")


def write(contents: Contents, out: Path, key: Path | None) -> BundleReport:
    """Write the file whole or not at all.

    Raises:
        MissingPackageError: the extra ``bundle`` or ``sign`` is not installed.
        OutputError: the place cannot be written to.
    """
    members, told = members_of(contents)
    if key is not None:
        from mbexport.bundle.sign import signature

        members[manifest.SIGNATURE] = signature(members, key)
    data = archive.written(members)
    serde.write_atomic(out, data)
    return BundleReport(
        bundle=str(out),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        artifacts=told.artifacts,
        files=len(members),
        signed=key is not None,
    )


def members_of(contents: Contents) -> tuple[dict[str, bytes], BundleManifest]:
    """Every file of an unsigned bundle, and its manifest."""
    members: dict[str, bytes] = {}
    for artifact in contents.artifacts:
        slug = artifact.manifest.slug
        for name in (*artifact.manifest.files, MANIFEST):
            members[f"{manifest.ARTIFACTS}/{slug}/{name}"] = (artifact.path / name).read_bytes()
        members |= evidence_members(artifact, contents.validations[slug], contents.profiles[slug])
    pictures, shown = golden_members(contents.artifacts[0])
    every = [profile for machines in contents.profiles.values() for profile in machines.values()]
    serving = servings(contents.artifacts, every)
    runtimes = {name: v for found in contents.validations.values() for name, v in found.versions.items()}
    members |= shown
    members[manifest.INFER] = Path(__file__).with_name(manifest.INFER).read_bytes()
    members[manifest.README] = card(contents.artifacts, serving, contents.validations, contents.profiles).encode()
    members[manifest.SBOM] = sbom(contents.artifacts, runtimes)
    told = BundleManifest(
        mbexport=importlib.metadata.version("mbexport"),
        artifacts=[_entry(artifact) for artifact in contents.artifacts],
        serving=serving,
        golden=pictures,
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())},
    )
    members[manifest.BUNDLE] = serde.json_bytes(told)
    return members, told


def _entry(artifact: Artifact) -> BundledArtifact:
    slug = artifact.manifest.slug
    return BundledArtifact(
        path=f"{manifest.ARTIFACTS}/{slug}", slug=slug, sha256=artifact.sha256, precision=artifact.manifest.precision
    )


def prove(
    artifact: Artifact, targets: Sequence[str], threads: int | None, tell: Callable[[str], None]
) -> StoredValidation:
    """Its validation here; raises :class:`UnprovenError` where it does not pass."""
    slug = artifact.manifest.slug
    report = validate(artifact, targets, threads=threads, progress=lambda what: tell(f"validate {slug} on {what}"))
    for row in report.rows:
        if not row.passed:
            raise UnprovenError(
                f"{artifact.path} fails on {row.runtime} ({row.mode}): {row.reason}; nothing was written. "
                "See: mbexport validate --explain"
            )
    return StoredValidation(
        machine=hardware.detect().slug,
        versions=engine_versions(targets),
        report=report,
    )


def _refuse_missing(key: Path | None) -> None:
    """What would only show after all the work."""
    require_cyclonedx()
    if key is not None:
        from mbexport.bundle.sign import signer

        signer(key)


def refuse_names(artifacts: Sequence[Artifact]) -> None:
    """Raise :class:`InputError` where there is no artifact, or two have one name."""
    if not artifacts:
        raise InputError("a bundle needs an artifact; make one with: mbexport build")
    slugs = [artifact.manifest.slug for artifact in artifacts]
    twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
    if twice is not None:
        raise InputError(f"two of the artifacts are {twice}; a bundle holds one of a name")
