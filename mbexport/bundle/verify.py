"""Is a bundle whole, what it says, and right on the runtimes here?"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

from mbexport.accuracy.checks import Checks
from mbexport.artifact import read_labels
from mbexport.bundle import manifest
from mbexport.bundle.evidence import read_evidence
from mbexport.bundle.golden import golden_members
from mbexport.bundle.unpack import unpacked
from mbexport.errors import BundleError
from mbexport.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mbexport.accuracy.report import ValidationRow
    from mbexport.artifact import Artifact
    from mbexport.bundle.unpack import Unpacked

SignatureState = Literal["none", "valid", "invalid", "not checked"]


class VerifiedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact on one runtime, float32 pinned."""

    artifact: str
    runtime: str
    sqnr_db: float | None
    threshold_db: float
    passed: bool
    reason: str | None


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """``passed``: whole, right on every runtime here, and no signature that was checked is wrong."""

    passed: bool
    bundle: str
    sha256: str
    files: int
    signature: SignatureState
    signature_fault: str | None
    rows: list[VerifiedRow]


def verify(
    path: Path,
    targets: Sequence[str],
    *,
    key: Path | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Check every byte, every document, the golden answers on the runtimes here, and the signature.

    Args:
        path: the bundle.
        targets: runtimes that are here.
        key: the public key, PEM, that must have signed it; without it a signature is reported and not checked.
        threads: for each engine.
        progress: told what is being done.

    Raises:
        BundleError: damaged, altered or hostile; the message names the member.
        ArtifactError: an artifact in it is not whole.
        DocumentError: a document in it is malformed or of a newer schema version.
        InputError: the key cannot be read.
        MissingPackageError: a key was given and the extra ``sign`` is not installed.
    """
    tell = progress or (lambda _message: None)
    tell("check every byte")
    with unpacked(path) as found:
        state, fault = _signature(found.root, key)
        signatures = int((found.root / manifest.SIGNATURE).is_file())
        _check_shown(path, found)
        rows = []
        for artifact in found.artifacts:
            read_labels(artifact)
            read_evidence(found.root, artifact)
            report = validate(
                artifact,
                targets,
                Checks(modes=("parity",)),
                threads=threads,
                progress=lambda what: tell(f"golden answers on {what}"),
            )
            rows += [_row(artifact, row) for row in report.rows]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return VerifyReport(
        passed=state != "invalid" and all(row.passed for row in rows),
        bundle=str(path),
        sha256=digest,
        files=len(found.manifest.files) + 1 + signatures,
        signature=state,
        signature_fault=fault,
        rows=rows,
    )


def _check_shown(path: Path, found: Unpacked) -> None:
    """What people and other tools look at: golden pictures with their answers, and the bill of materials."""
    entries, members = golden_members(found.artifacts[0])
    if entries != found.manifest.golden or any(
        (found.root / name).read_bytes() != data for name, data in members.items()
    ):
        raise BundleError(f"{path}: the golden pictures are not those of {found.artifacts[0].manifest.slug}")
    try:
        document = msgspec.json.decode((found.root / manifest.SBOM).read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {manifest.SBOM} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise BundleError(f"{path}: {manifest.SBOM} is no CycloneDX document")


def _signature(root: Path, key: Path | None) -> tuple[SignatureState, str | None]:
    signed = (root / manifest.SIGNATURE).is_file()
    if key is None:
        return ("not checked" if signed else "none"), None
    from mbexport.bundle.sign import fault, verifier

    asked = verifier(key)
    if not signed:
        return "invalid", "it is not signed"
    found = fault(root, asked)
    return ("invalid" if found else "valid"), found


def _row(artifact: Artifact, row: ValidationRow) -> VerifiedRow:
    return VerifiedRow(
        artifact=artifact.manifest.slug,
        runtime=row.runtime,
        sqnr_db=row.sqnr_db,
        threshold_db=row.threshold_db,
        passed=row.passed,
        reason=row.reason,
    )
