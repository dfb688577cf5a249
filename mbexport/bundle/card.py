"""The bundle's README.md: a model card for the people who will run the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import architecture
from mbexport.bench.statistics import percentile
from mbexport.bundle.manifest import BUNDLE, INFER, SBOM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.bundle.evidence import StoredValidation
    from mbexport.bundle.manifest import Serving
    from mbexport.manifest import InputContract, Manifest
    from mbexport.profile import LatencyProfile


def card(
    artifacts: Sequence[Artifact],
    serving: Sequence[Serving],
    validations: Mapping[str, StoredValidation],
    profiles: Mapping[str, Mapping[str, LatencyProfile]],
) -> str:
    """Markdown.

    Args:
        artifacts: the first is what the bundle is named after.
        serving: how it is run, the best first.
        validations: slug -> what ``validate`` found.
        profiles: slug -> machine -> what was measured.
    """
    first = artifacts[0].manifest
    parts = [_head(first), _use(serving), _input(first.input), _outputs(first)]
    parts += [_accuracy(artifacts, validations), _latency(profiles), _origin(artifacts)]
    return "\n".join(line for part in parts for line in part)


def _head(manifest: Manifest) -> Iterator[str]:
    yield f"# {manifest.slug}"
    yield ""
    spec = manifest.spec
    if spec is None:
        yield "A network of its owner's own, exported from Keras to ONNX by mbexport."
    else:
        name = "MobileNetV2" if spec.variant == "v2" else f"MobileNetV3 {spec.variant.capitalize()}"
        kind = ", minimalistic" if spec.minimalistic else ""
        parameters, macs = architecture.parameters(spec), architecture.macs(spec)
        yield (
            f"{name}{kind}, alpha {spec.alpha:g}: {parameters / 1e6:.2f} million parameters, "
            f"{macs / 1e6:.0f} million multiply-accumulates, exported from Keras to ONNX by mbexport."
        )
    if manifest.weights.note:
        yield ""
        yield f"**{manifest.weights.note[0].upper()}{manifest.weights.note[1:]}.**"
    yield ""


def _use(serving: Sequence[Serving]) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```console"
    yield "$ pip install numpy pillow onnxruntime   # or openvino"
    yield f"$ python {INFER} golden/1.bmp"
    yield "```"
    yield ""
    yield "It takes the first of these whose engine is installed:"
    yield ""
    yield "| engine | device | file | settings | found on |"
    yield "|---|---|---|---|---|"
    for one in serving:
        settings = ", ".join(f"{key}={value}" for key, value in sorted(one.settings.items())) or "its defaults"
        yield f"| {one.engine} | {one.device} | {one.model} | {settings} | {one.tuned_on or 'defaults'} |"
    yield ""
    yield "`mbexport verify`, `validate` and `bench` take the bundle's file as it is."
    yield f"What Keras answers to the pictures in `golden/` stands in `{BUNDLE}`; what made the files, in `{SBOM}`."
    yield ""


def _input(contract: InputContract) -> Iterator[str]:
    yield "## Input"
    yield ""
    lowest, highest = contract.range
    yield (
        f"`{contract.name}`, {contract.type} {_shape(contract.shape)} ({contract.layout}), {contract.colour_order}, "
        f"{lowest:g} to {highest:g}. A picture p of 0 to 255 goes in as (p - {contract.mean:g}) / {contract.scale:g}; "
        f"resize: {contract.resize}; crop: {contract.crop}."
    )
    yield ""


def _outputs(manifest: Manifest) -> Iterator[str]:
    yield "## Outputs"
    yield ""
    for output in manifest.outputs:
        yield f"- `{output.name}`, {_shape(output.shape)}: {output.kind}"
    yield ""


def _shape(shape: Sequence[int | None]) -> str:
    return "x".join("any" if side is None else str(side) for side in shape)


def _accuracy(artifacts: Sequence[Artifact], validations: Mapping[str, StoredValidation]) -> Iterator[str]:
    yield "## Accuracy"
    yield ""
    yield "Distance of each runtime's answers from Keras's network in float64, on the artifact's stored pictures:"
    yield ""
    yield "| network | runtime | mode | precision | SQNR, dB | least, dB |"
    yield "|---|---|---|---|---:|---:|"
    for artifact in artifacts:
        for row in validations[artifact.manifest.slug].report.rows:
            distance = "equal" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
            yield (
                f"| {artifact.manifest.slug} | {row.runtime} | {row.mode} | {row.precision.effective} | {distance} "
                f"| {row.threshold_db:.1f} |"
            )
    yield ""


def _latency(profiles: Mapping[str, Mapping[str, LatencyProfile]]) -> Iterator[str]:
    rows = [
        (slug, machine, row)
        for slug, machines in profiles.items()
        for machine, profile in machines.items()
        for row in profile.measurements
        if row.scenario == "single-stream"
    ]
    yield "## Latency"
    yield ""
    if not rows:
        yield "Not measured; `mbexport bench` measures it on the machine at hand."
        yield ""
        return
    yield "| network | machine | runtime | precision | threads | batch | p50, ms | p99, ms | verdict |"
    yield "|---|---|---|---|---:|---:|---:|---:|---|"
    for slug, machine, row in rows:
        quantiles = (percentile(row.samples_ns, share) for share in (0.5, 0.99))
        shown = ["-" if value is None else f"{value * 1e-6:.2f}" for value in quantiles]
        cells = [slug, machine, row.runtime, row.precision, str(row.threads), str(row.batch), *shown, row.verdict]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _origin(artifacts: Sequence[Artifact]) -> Iterator[str]:
    yield "## Origin"
    yield ""
    for artifact in artifacts:
        manifest = artifact.manifest
        weights = manifest.weights
        of = f"seed {weights.seed}" if weights.kind == "random" else f"sha256 {weights.sha256}"
        tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
        yield f"- {manifest.slug} ({manifest.precision}), model.onnx sha256 {artifact.sha256}"
        yield f"  - weights: {weights.kind}, {of}"
        if manifest.derivation is not None:
            yield f"  - made of {manifest.derivation.source_sha256}: {manifest.derivation.method}"
        yield f"  - made with {tools}"
    yield ""
