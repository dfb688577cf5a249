"""Results as JSON documents. The keys are promised to scripts; paths are strings, times seconds."""

from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import serde

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mbexport.bench import BenchReport
    from mbexport.catalog import Info
    from mbexport.export import BuildResult
    from mbexport.profile import LatencyProfile, PublishedProfile
    from mbexport.reproduce import Reproduction
    from mbexport.spec import ModelSpec
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


def catalogue(published: "Iterable[Info]", others: "Iterable[Info]", holes: "Iterable[ModelSpec]") -> dict[str, Any]:
    """The published figures of each network beside those computed here; then networks with weights but no figures."""
    return {
        "models": [
            {**msgspec.structs.asdict(about.published), **_computed(about)}
            for about in published
            if about.published is not None
        ],
        "without_figures": [{"name": about.spec.slug, "spec": about.spec, **_computed(about)} for about in others],
        "holes": [spec.slug for spec in holes],
    }


def _computed(about: "Info") -> dict[str, Any]:
    names = ("parameters", "trainable_parameters", "parameters_without_batch_norm", "macs")
    return {
        "computed": {name: getattr(about, name) for name in names},
        "disagreements": about.disagreements,
        "imagenet": about.imagenet,
    }


def is_shipped(path: "Path", shipped: "Path") -> bool:
    """Whether a profile travels with mbexport; in a source tree ``./profiles`` may be that very folder."""
    return path.resolve().is_relative_to(shipped.resolve())


def profiles(found: "Mapping[Path, LatencyProfile]", shipped: "Path") -> dict[str, Any]:
    """Profiles without their raw samples and the trials of ``tune``, which lie in the files."""
    import msgspec

    from mbexport.bench import rows_of

    return {
        "profiles": [
            {
                "path": str(path),
                "shipped": is_shipped(path, shipped),
                "hardware": profile.hardware.slug,
                "artifact": profile.artifact,
                "artifact_sha256": profile.artifact_sha256,
                "precision": profile.precision,
                "rows": rows_of(profile),
                "tuned": [msgspec.structs.replace(each, trials=[]) for each in profile.tuned],
            }
            for path, profile in found.items()
        ]
    }


def published_profiles(found: "Mapping[Path, PublishedProfile]", shipped: "Path") -> dict[str, Any]:
    """What was published and not measured, apart from the profiles, which have samples."""
    return {
        "published": [
            {
                "path": str(path),
                "shipped": is_shipped(path, shipped),
                "kind": profile.kind,
                "device": profile.device,
                "rows": profile.rows,
            }
            for path, profile in found.items()
        ]
    }
