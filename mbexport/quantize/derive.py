"""A narrower artifact written beside the one that it was made of."""

from __future__ import annotations

import importlib.metadata
import math
from typing import TYPE_CHECKING

import msgspec
import onnx

from mbexport.accuracy.rounding import file_answers, precision_floor_db
from mbexport.artifact import MODEL, OPENVINO_MODEL, read_labels, read_reference, write_artifact
from mbexport.compare import sqnr_db
from mbexport.outputs import comparable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.manifest import Derivation, Manifest
    from mbexport.spec import Precision

PRODUCER = "mbexport"


def write_narrower(
    source: Artifact, target: Path, precision: Precision, models: Mapping[str, onnx.ModelProto], derivation: Derivation
) -> Artifact:
    """Write the folder ``target`` whole or not at all, with the source's contract, reference and labels.

    Raises:
        OutputError: the place cannot be written to.
    """
    manifest = _manifest(source, precision, set(models), derivation)
    contents = {name: _serialised(model, manifest) for name, model in models.items()}
    reference, labels = read_reference(source), read_labels(source)
    return write_artifact(target.parent, manifest, contents, reference, name=target.name, labels=labels)


def distances_db(source: Artifact, model: onnx.ModelProto) -> dict[str, float | None]:
    """Output -> SQNR of a model, computed as it says, against Keras's float64 on the reference pictures.

    None where both are equal, or a number is not finite.

    Raises:
        EngineError: ONNX Runtime cannot run it.
    """
    reference = read_reference(source)
    found = file_answers(model, reference.inputs)
    distances = {}
    for output in source.manifest.outputs:
        distance = sqnr_db(*comparable(output, reference.keras_float64[output.name], found[output.name]))
        distances[output.name] = distance if math.isfinite(distance) else None
    return distances


def bf16_sqnr_db(source: Artifact) -> dict[str, float]:
    """Output -> what bf16 leaves of the float32 network, on the reference pictures, in dB."""
    model, outputs = onnx.load(source.path / MODEL), source.manifest.outputs
    found = precision_floor_db(model, read_reference(source).inputs, outputs, "bf16")
    return {name: noise_db for name, noise_db in found.items() if math.isfinite(noise_db)}


def _manifest(source: Artifact, precision: Precision, files: set[str], derivation: Derivation) -> Manifest:
    manifest = source.manifest
    return msgspec.structs.replace(
        manifest,
        slug=f"{manifest.slug}_{precision}",
        precision=precision,
        derivation=derivation,
        models={"ort": MODEL, "openvino": OPENVINO_MODEL if OPENVINO_MODEL in files else MODEL},
        tools={**manifest.tools, **{name: importlib.metadata.version(name) for name in (PRODUCER, "onnx", "numpy")}},
    )


def _serialised(model: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The file, with what it is in its metadata; no dates, so that bytes can be compared."""
    written = type(model)()
    written.CopyFrom(model)
    written.graph.name = manifest.slug
    for name, value in (("precision", manifest.precision), ("derivation", _stated(manifest))):
        entry = written.metadata_props.add()
        entry.key, entry.value = f"mbexport.{name}", msgspec.json.encode(value, order="deterministic").decode()
    data: bytes = written.SerializeToString(deterministic=True)
    return data


def _stated(manifest: Manifest) -> object:
    """What the model file says of its making: the manifest has the ranges and the pictures' digests."""
    derivation = manifest.derivation
    assert derivation is not None
    return {key: getattr(derivation, key) for key in ("source_sha256", "method", "weight_levels")}
