"""What a runtime is tried on: inputs with their truth, and the limits of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport import thresholds
from mbexport.accuracy.limits import Limit, float32_limits
from mbexport.reference import Reference
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import InputContract

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Probe:
    """Inputs by tensor name, the batch first, and the float64 truth of each output."""

    inputs: Arrays
    truth: Arrays
    float32_limits: Mapping[str, Limit]
    names: Sequence[str]
    """What each picture is called."""
    where: str
    """For a message that ends with it: `` at 160x96``."""
    own: bool = True
    """Whether these are the artifact's seeded pictures, and not photographs."""

    @property
    def pictures(self) -> NDArray[Any]:
        """The network's only input."""
        return next(iter(self.inputs.values()))


def stored_probes(artifact: Artifact, stored: Reference) -> Iterator[Probe]:
    """Each size, then each golden picture, made an input by the contract as a user's program would."""
    from mbexport.images import network_input

    contract, outputs = artifact.manifest.input, artifact.manifest.outputs
    for reference in stored.each:
        where = size_label(contract, reference)
        names = [f"reference picture {number}{where}" for number in range(1, len(_pictures(reference)) + 1)]
        limits = float32_limits(outputs, reference, artifact.manifest.graph.ops)
        yield Probe(reference.inputs, reference.keras_float64, limits, names, where)
    golden = Limit(thresholds.GOLDEN_LEAST_DB, "a golden picture: one that goes in wrongly leaves 20 dB at most")
    for number, kept in enumerate(stored.golden, start=1):
        inputs = {contract.name: network_input(kept.picture[None], contract)}
        limits = dict.fromkeys((output.name for output in outputs), golden)
        name = f"golden picture {number}"
        yield Probe(inputs, kept.keras_float64, limits, [name], f" on {name}", own=False)


def image_probe(artifact: Artifact, paths: Sequence[Path], progress: Callable[[str], None]) -> Probe:
    """The user's own pictures. Their truth is the artifact's graph in float64, which the stored inputs hold to Keras.

    Raises:
        PictureError: a file that is no picture.
        ArtifactError: the graph in float32 is too far from itself in float64 to prove anything.
    """
    import onnx

    from mbexport.accuracy.graph_float64 import evaluate, in_float64
    from mbexport.artifact import MODEL
    from mbexport.images import network_input, picture

    contract, outputs = artifact.manifest.input, artifact.manifest.outputs
    model = onnx.load(artifact.path / MODEL)
    doubled = in_float64(model)
    parts: list[tuple[Arrays, Arrays, Arrays]] = []
    for number, path in enumerate(paths, start=1):
        progress(f"the network in float64 on picture {number} of {len(paths)}")
        inputs = {contract.name: network_input(picture(path, contract)[None], contract)}
        parts.append((inputs, evaluate(model, inputs), evaluate(doubled, inputs)))
    inputs, single, double = (_joined([part[kind] for part in parts]) for kind in range(3))
    reference = Reference(inputs, single, double)
    limits = float32_limits(outputs, reference, artifact.manifest.graph.ops, who="this graph in NumPy's float32")
    names = [str(path) for path in paths]
    return Probe(inputs, double, limits, names, f" on {len(paths)} pictures", own=False)


def _joined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def size_label(contract: InputContract, reference: Reference) -> str:
    """`` at 160x96`` where height and width are dynamic, else nothing."""
    return f" at {size_text(contract.size_of(_pictures(reference)))}" if contract.is_dynamic else ""


def _pictures(reference: Reference) -> NDArray[Any]:
    return next(iter(reference.inputs.values()))
