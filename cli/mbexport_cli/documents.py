"""Results as JSON documents. The keys are promised to scripts; paths are strings, times seconds."""

from typing import TYPE_CHECKING, Any

from mbexport import serde

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mbexport.bench import BenchReport
    from mbexport.catalog import Published
    from mbexport.pipeline import BuildResult
    from mbexport.profile import LatencyProfile
    from mbexport.reproduce import Reproduction
    from mbexport.validate import ValidationReport


def text(document: Any) -> str:
    """A document as JSON text, with a final newline."""
    return serde.json_bytes(document).decode()


def build(result: "BuildResult", reproduction: "Reproduction | None" = None) -> dict[str, Any]:
    artifact = result.artifact
    asked = {} if reproduction is None else {"reproducible": reproduction}
    return {
        "artifact": str(artifact.path),
        "model": str(artifact.path / "model.onnx"),
        "sha256": artifact.sha256,
        "spec": artifact.manifest.spec,
        "weights": artifact.manifest.weights,
        "graph": artifact.manifest.graph,
        "timings_s": result.timings_s,
        **asked,
    }


def run(built: "BuildResult", validation: "ValidationReport", benched: "BenchReport") -> dict[str, Any]:
    return {"build": build(built), "validate": validation, "bench": benched}


def catalogue(entries: "Iterable[Published]") -> dict[str, Any]:
    return {"models": list(entries)}


def is_shipped(path: "Path", shipped: "Path") -> bool:
    """Whether a profile travels with mbexport; in a source tree ``./profiles`` may be that very folder."""
    return path.resolve().is_relative_to(shipped.resolve())


def profiles(found: "Mapping[Path, LatencyProfile]", shipped: "Path") -> dict[str, Any]:
    """Profiles without their raw samples, which lie in the files."""
    from mbexport.bench import rows_of

    return {
        "profiles": [
            {
                "path": str(path),
                "shipped": is_shipped(path, shipped),
                "hardware": profile.hardware.slug,
                "artifact": profile.artifact,
                "artifact_sha256": profile.artifact_sha256,
                "rows": rows_of(profile),
            }
            for path, profile in found.items()
        ]
    }
