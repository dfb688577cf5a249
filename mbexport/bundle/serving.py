"""How the bundled network is run: as it was tuned where that was done, else at each engine's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.bundle.manifest import ARTIFACTS, Serving
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.profile import LatencyProfile
    from mbexport.tuned import TunedConfiguration

_DEVICES = {"ort": "CPUExecutionProvider", "openvino": "CPU"}
_PACKAGES = {"ort": "onnxruntime", "openvino": "openvino"}
_SERVED = ("ort:cpu", "openvino:cpu")
THREADS = {"ort": "intra_op_num_threads", "openvino": "INFERENCE_NUM_THREADS"}
_LATENCY: Mapping[str, Mapping[str, str]] = {"ort": {}, "openvino": {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}}
"""One caller, as it was measured."""


def servings(artifacts: Sequence[Artifact], profiles: Iterable[LatencyProfile]) -> list[Serving]:
    """The tuned configurations first, then the first artifact at the defaults of each engine on the CPU.

    Args:
        artifacts: what is bundled.
        profiles: of theirs, from any machines.
    """
    own = _float32_sha256(artifacts[0])
    bundled = {artifact.sha256: artifact for artifact in artifacts if _float32_sha256(artifact) == own}
    tuned = [found for profile in profiles for found in _tuned(profile, bundled)]
    defaults = []
    for target in _SERVED:
        engine = split_target(target)[0]
        model = artifacts[0].model_path(target).name
        path = f"{ARTIFACTS}/{artifacts[0].manifest.slug}/{model}"
        defaults.append(_serving(engine, path, {}))
    return [*tuned, *defaults]


def _float32_sha256(artifact: Artifact) -> str:
    """Of the network that an artifact is, or was made of."""
    derivation = artifact.manifest.derivation
    return artifact.sha256 if derivation is None else derivation.source_sha256


def _serving(engine: str, model: str, settings: Mapping[str, str], tuned_on: str | None = None) -> Serving:
    return Serving(
        engine=engine,
        package=_PACKAGES[engine],
        device=_DEVICES[engine],
        model=model,
        settings={**_LATENCY[engine], **settings},
        tuned_on=tuned_on,
    )


def _tuned(profile: LatencyProfile, bundled: Mapping[str, Artifact]) -> Iterator[Serving]:
    """Those for one caller whose file is in the bundle."""
    for found in profile.tuned:
        wanted = found.configuration
        artifact = bundled.get(wanted.sha256)
        is_same = artifact is not None and artifact.manifest.files.get(wanted.model) == wanted.model_sha256
        if is_same and wanted.callers == 1 and wanted.runtime in _SERVED:
            yield _as_found(found, profile.hardware.slug)


def _as_found(found: TunedConfiguration, machine: str) -> Serving:
    wanted = found.configuration
    engine = split_target(wanted.runtime)[0]
    pinned = {"INFERENCE_PRECISION_HINT": "f32"} if (engine, wanted.mode) == ("openvino", "parity") else {}
    settings = {THREADS[engine]: str(wanted.threads), **pinned, **wanted.options}
    return _serving(engine, f"{ARTIFACTS}/{wanted.artifact}/{wanted.model}", settings, machine)
