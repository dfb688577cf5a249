"""What was found of an artifact: its validation here, and the profiles that hold its measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from mbexport.accuracy.report import ValidationReport
from mbexport.bundle.manifest import EVIDENCE
from mbexport.errors import BundleError
from mbexport.profiles import list_profiles, read_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.profile import LatencyProfile

VALIDATION, SCHEMA_VERSION = "validation.json", 1


class StoredValidation(msgspec.Struct, frozen=True, kw_only=True):
    """A validation report as it travels."""

    schema_version: int = SCHEMA_VERSION
    machine: str
    """Slug of the machine that it was made on."""
    versions: dict[str, str]
    report: ValidationReport


def profiles_of(artifact: Artifact, folders: Iterable[Path]) -> dict[str, LatencyProfile]:
    """Machine's slug -> the profile of this very model.onnx, of the first folder that has one.

    Raises:
        DocumentError: a profile is damaged or of a newer schema version.
    """
    found: dict[str, LatencyProfile] = {}
    for profile in list_profiles(folders).values():
        if profile.artifact_sha256 == artifact.sha256:
            found.setdefault(profile.hardware.slug, profile)
    return dict(sorted(found.items()))


def evidence_members(
    artifact: Artifact, validation: StoredValidation, profiles: Mapping[str, LatencyProfile]
) -> dict[str, bytes]:
    """The files in the bundle."""
    folder = f"{EVIDENCE}/{artifact.manifest.slug}"
    measured = {f"{folder}/profiles/{machine}.json": serde.json_bytes(profile) for machine, profile in profiles.items()}
    return {f"{folder}/{VALIDATION}": serde.json_bytes(validation), **measured}


def read_evidence(root: Path, artifact: Artifact) -> tuple[StoredValidation, dict[str, LatencyProfile]]:
    """What an unpacked bundle has of an artifact.

    Raises:
        BundleError: a profile of another artifact.
        DocumentError: a document that is malformed or of a newer schema version.
    """
    folder = root / EVIDENCE / artifact.manifest.slug
    validation = serde.read_document(folder / VALIDATION, StoredValidation, SCHEMA_VERSION)
    profiles = {path.stem: profile for path, profile in read_folder(folder / "profiles").items()}
    if any(profile.artifact_sha256 != artifact.sha256 for profile in profiles.values()):
        raise BundleError(f"a profile in {EVIDENCE}/{artifact.manifest.slug} is of another model.onnx")
    return validation, profiles
