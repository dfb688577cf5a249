"""A validation report that was made before is not made again, as long as nothing that it depends on has changed."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport import hardware, serde
from mbexport.accuracy.report import ValidationReport
from mbexport.artifact import MANIFEST
from mbexport.cache import digest_of
from mbexport.cached import source_digest, stable_machine
from mbexport.runtimes import engine_versions
from mbexport.validate import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.cache import Cache

KIND = "validation"
_REPORT = "validation.json"


class _NotPassedError(Exception):
    """Carries a report past the cache."""

    def __init__(self, report: ValidationReport) -> None:
        super().__init__("the validation did not pass")
        self.report = report


def validated(cache: Cache, artifact: Artifact, targets: Sequence[str], threads: int) -> tuple[ValidationReport, bool]:
    """The report, and whether it was there. A failure is not kept: it may have been a device short of memory.

    Raises:
        CacheError: the cache cannot be written to.
        MbexportError: whatever validating raises.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        report = validate(artifact, targets, threads=threads)
        if not report.passed:
            raise _NotPassedError(report)
        (folder / _REPORT).write_bytes(serde.json_bytes(report))
        return {}

    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        target = Path(folder) / "report"
        try:
            fetched = cache.fetch(KIND, _inputs(artifact, targets), target, make)
        except _NotPassedError as error:
            return error.report, False
        return serde.decoded((target / _REPORT).read_bytes(), ValidationReport), fetched.was_there


def digest(artifact: Artifact, targets: Sequence[str]) -> str:
    """The name of the report's entry in a cache."""
    return digest_of(KIND, _inputs(artifact, targets))


def _inputs(artifact: Artifact, targets: Sequence[str]) -> dict[str, Any]:
    return {
        "name": artifact.manifest.slug,
        "manifest": hashlib.sha256((artifact.path / MANIFEST).read_bytes()).hexdigest(),
        "targets": list(targets),
        "machine": stable_machine(),
        "engines": engine_versions(targets),
        "driver": hardware.accelerator_driver(),
        "code": source_digest(),
    }
