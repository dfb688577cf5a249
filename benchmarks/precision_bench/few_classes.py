"""How far chance sets bf16 noise apart, by the number of classes and of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.accuracy.chance import chance_db
from mbexport.accuracy.rounding import rounded
from mbexport.compare import centred_log
from mbexport.manifest import OutputContract
from mbexport.runtimes.ort_calls import run_unoptimized
from precision_bench.engines import openvino_bf16

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact

CLASSES, PICTURES, DRAWS = (1, 2, 3, 5, 10, 30, 100, 1000), (1, 4), 60
JITTER = 0.02
"""Of the pictures' standard deviation: enough for every number to be rounded anew."""

Noises = dict[str, "NDArray[Any]"]
"""Noise of centred logits (pictures, classes): as predicted, in another realisation, and OpenVINO's."""


def noises(artifact: Artifact, model: onnx.ModelProto, inputs: NDArray[Any], truth: NDArray[Any]) -> Noises:
    """Of a network that ends in softmax over 1000 classes."""
    (output,), name = artifact.manifest.outputs, artifact.manifest.input.name
    narrow = rounded(model, "bf16")
    rng = np.random.default_rng(0)
    moved = (inputs + rng.normal(0, JITTER * inputs.std(), inputs.shape)).astype(np.float32)

    def logits(graph: onnx.ModelProto, shown: NDArray[Any]) -> NDArray[np.float64]:
        return centred_log(run_unoptimized(graph, {name: shown})[output.name])

    real = openvino_bf16(artifact, artifact.model_path("openvino:cpu"), 1, len(inputs))[output.name]
    exact = centred_log(truth)
    return {
        "predicted": logits(narrow, inputs) - exact,
        "another": logits(narrow, moved) - logits(model, moved),
        "OpenVINO": centred_log(real) - exact,
    }


def table(networks: Sequence[Noises]) -> Iterator[str]:
    """What a head of so many classes would have shown: classes drawn from the thousand, many times."""
    yield "| pictures | classes | OpenVINO, worst | another realisation, worst | its 0.1% | allowed for chance |"
    yield "|---:|---:|---:|---:|---:|---:|"
    rng = np.random.default_rng(0)
    for pictures in PICTURES:
        for classes in CLASSES:
            under: dict[str, list[float]] = {"OpenVINO": [], "another": []}
            for noise in networks:
                for _ in range(DRAWS if classes < max(CLASSES) else 1):
                    rows = rng.choice(max(PICTURES), pictures, replace=False)
                    chosen = np.ix_(rows, rng.choice(max(CLASSES), classes, replace=False))
                    energies = {name: _energy(array[chosen]) for name, array in noise.items()}
                    for name, found in under.items():
                        found.append(10 * np.log10(energies["predicted"] / energies[name]))
            output = OutputContract(name="y", shape=[None, classes], kind="probabilities")
            allowed_db = chance_db(output, np.zeros((pictures, classes)))
            yield (
                f"| {pictures} | {classes} | {min(under['OpenVINO']):.1f} | {min(under['another']):.1f} | "
                f"{np.quantile(under['another'], 0.001):.1f} | {allowed_db:.1f} |"
            )


def _energy(noise: NDArray[Any]) -> float:
    centred = noise - noise.mean(axis=1, keepdims=True) if noise.shape[1] > 1 else noise
    return float(np.sum(np.square(centred)))
