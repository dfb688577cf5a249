"""What a fault changes in a network's answers, and the artifact that holds it."""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import serde
from mbexport.artifact import MANIFEST, MODEL, Artifact, read_artifact
from mbexport.errors import EngineError
from mbexport.manifest import OutputContract
from mbexport.outputs import compare_output
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from fault_bench.fault import Injected

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Effect:
    """SQNR of the worst output against the right model's: inf where bit-equal.

    -inf where there is no such number, because the model does not run or answers what cannot be compared (NaN, another
    shape, probabilities that do not sum to 1); ``reason`` says why.
    """

    sqnr_db: float
    reason: str | None = None


def effect_of(correct: onnx.ModelProto, faulty: onnx.ModelProto, inputs: Arrays) -> Effect:
    """Run both on the same inputs and compare, logits or probabilities as ``validate`` does."""
    right = run_unoptimized(correct, inputs)
    try:
        wrong = run_unoptimized(faulty, inputs)
    except EngineError as error:
        return Effect(-math.inf, str(error))
    return min((_effect(output, right, wrong) for output in _contracts(correct)), key=lambda found: found.sqnr_db)


def faulty_artifact(artifact: Artifact, injected: Injected, folder: Path) -> Artifact:
    """A copy of the artifact as ``folder`` with the faulty model in place of the right one, and digests that agree."""
    shutil.copytree(artifact.path, folder)
    data = injected.model.SerializeToString(deterministic=True)
    (folder / MODEL).write_bytes(data)
    files = {**artifact.manifest.files, MODEL: hashlib.sha256(data).hexdigest()}
    models = dict.fromkeys(artifact.manifest.models, MODEL)
    manifest = msgspec.structs.replace(artifact.manifest, files=files, models=models)
    (folder / MANIFEST).write_bytes(serde.json_bytes(manifest))
    return read_artifact(folder)


def _effect(output: OutputContract, right: Arrays, wrong: Arrays) -> Effect:
    found = compare_output(output, right[output.name].astype("float64"), wrong, -math.inf)
    if found.sqnr_db is not None:
        return Effect(found.sqnr_db)
    return Effect(math.inf) if found.passed else Effect(-math.inf, found.reason)


def _contracts(model: onnx.ModelProto) -> list[OutputContract]:
    """What the outputs are, as the file itself says."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return msgspec.json.decode(metadata["mbexport.outputs"], type=list[OutputContract])
