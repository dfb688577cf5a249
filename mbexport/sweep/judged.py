"""Accuracy on labelled pictures, counted once for the same artifact, pictures, engines and machine."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport import serde
from mbexport.artifact import MANIFEST, read_labels
from mbexport.cached import source_digest, stable_machine
from mbexport.classifier import classifier_outputs
from mbexport.evaluate import EvaluationReport, evaluate
from mbexport.folders import labelled_set
from mbexport.runtimes import engine_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.cache import Cache

KIND = "evaluation"
_REPORT = "evaluation.json"


def evaluated(cache: Cache, artifact: Artifact, images: Path, targets: Sequence[str], threads: int) -> EvaluationReport:
    """Top-1 and top-5 at the engines' default precision, beside float32's on the same pictures.

    Raises:
        CacheError: the cache cannot be written to.
        MbexportError: whatever evaluating raises.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        report = evaluate(artifact, images, targets, threads=threads, mode="production")
        (folder / _REPORT).write_bytes(serde.json_bytes(report))
        return {}

    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        target = Path(folder) / "report"
        cache.fetch(KIND, _inputs(artifact, images, targets), target, make)
        return serde.decoded((target / _REPORT).read_bytes(), EvaluationReport)


def _inputs(artifact: Artifact, images: Path, targets: Sequence[str]) -> dict[str, Any]:
    output = classifier_outputs(artifact)[0]
    shown = labelled_set(images, output.shape[-1] or 0, read_labels(artifact)).pictures
    return {
        "manifest": hashlib.sha256((artifact.path / MANIFEST).read_bytes()).hexdigest(),
        "float32": _neighbour(artifact),
        "pictures": [[hashlib.sha256(each.path.read_bytes()).hexdigest(), each.label] for each in shown],
        "targets": list(targets),
        "machine": stable_machine(),
        "engines": engine_versions(targets),
        "code": source_digest(),
    }


def _neighbour(artifact: Artifact) -> str | None:
    """Digest of the manifest of the float32 artifact that lies beside a narrower one, which is judged by it."""
    slug, precision = artifact.manifest.slug, artifact.manifest.precision
    manifest = artifact.path.parent / slug.removesuffix(f"_{precision}") / MANIFEST
    if precision == "f32" or not manifest.is_file():
        return None
    return hashlib.sha256(manifest.read_bytes()).hexdigest()
