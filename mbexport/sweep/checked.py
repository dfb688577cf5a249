"""A validation report that was made before is not made again, as long as nothing that it depends on has changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport import hardware, serde
from mbexport.accuracy.report import ValidationReport
from mbexport.artifact import MANIFEST
from mbexport.cached import source_digest
from mbexport.validate import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.cache import Cache

KIND = "validation"
_REPORT = "validation.json"
_ENGINES = ("onnxruntime-gpu", "onnxruntime", "openvino")


def validated(cache: Cache, artifact: Artifact, targets: Sequence[str], threads: int) -> tuple[ValidationReport, bool]:
    """The report, and whether it was there.

    Raises:
        CacheError: the cache cannot be written to.
        MbexportError: whatever validating raises.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        report = validate(artifact, targets, threads=threads)
        (folder / _REPORT).write_bytes(serde.json_bytes(report))
        return {}

    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        target = Path(folder) / "report"
        fetched = cache.fetch(KIND, _inputs(artifact, targets, threads), target, make)
        return serde.decoded((target / _REPORT).read_bytes(), ValidationReport), fetched.was_there


def _inputs(artifact: Artifact, targets: Sequence[str], threads: int) -> dict[str, Any]:
    return {
        "name": artifact.manifest.slug,
        "manifest": hashlib.sha256((artifact.path / MANIFEST).read_bytes()).hexdigest(),
        "targets": list(targets),
        "threads": threads,
        "machine": hardware.detect(),
        "engines": {name: version for name in _ENGINES if (version := _version(name))},
        "code": source_digest(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
