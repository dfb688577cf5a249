"""What a runtime is tried on: inputs with their truth, and the limits of its answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport import thresholds
from mbexport.accuracy.limit import Limit
from mbexport.accuracy.limits import float32_limits
from mbexport.errors import UntiedGraphError
from mbexport.outputs import comparable, images_limit_db
from mbexport.pictures import joined
from mbexport.reference import Reference
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx
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

    def first(self, count: int) -> Probe:
        """No more than so many pictures of it."""
        inputs, truth = ({name: array[:count] for name, array in part.items()} for part in (self.inputs, self.truth))
        return replace(self, inputs=inputs, truth=truth, names=self.names[:count])


def stored_probes(artifact: Artifact, stored: Reference) -> Iterator[Probe]:
    """Each size, then each golden picture, made an input by the contract as a user's program would."""
    from mbexport.images import network_input

    contract, outputs = artifact.manifest.input, artifact.manifest.outputs
    for reference in stored.each:
        where = size_label(contract, reference)
        names = [f"reference picture {number}{where}" for number in range(1, len(_pictures(reference)) + 1)]
        limits = float32_limits(outputs, reference)
        yield Probe(reference.inputs, reference.keras_float64, limits, names, where)
    golden = Limit(thresholds.GOLDEN_LEAST_DB, "a golden picture: one that goes in wrongly leaves 20 dB at most")
    for number, kept in enumerate(stored.golden, start=1):
        inputs = {contract.name: network_input(kept.picture[None], contract)}
        limits = dict.fromkeys((output.name for output in outputs), golden)
        name = f"golden picture {number}"
        yield Probe(inputs, kept.keras_float64, limits, [name], f" on {name}", own=False)


def image_probe(artifact: Artifact, stored: Reference, paths: Sequence[Path], progress: Callable[[str], None]) -> Probe:
    """The user's own pictures. Their truth is the artifact's graph in float64, tied to Keras by a stored picture.

    Raises:
        PictureError: a file that is no picture.
        UntiedGraphError: the graph in float64 is not what Keras computed, so it is no truth.
        EngineError: the evaluator cannot run the graph.
    """
    import onnx

    from mbexport.accuracy.graph_float64 import evaluate, in_float64
    from mbexport.artifact import MODEL
    from mbexport.images import network_input, picture

    contract, outputs = artifact.manifest.input, artifact.manifest.outputs
    model = onnx.load(artifact.path / MODEL)
    doubled = in_float64(model)
    _require_keras(artifact, stored, doubled)
    parts: list[tuple[Arrays, Arrays, Arrays]] = []
    for number, path in enumerate(paths, start=1):
        progress(f"the network in float64 on picture {number} of {len(paths)}")
        shown = network_input(picture(path, contract)[None], contract)
        inputs = {contract.name: shown.repeat(contract.shape[0] or 1, axis=0)}
        found = (inputs, evaluate(model, inputs), evaluate(doubled, inputs))
        single, double = ({name: array[:1] for name, array in part.items()} for part in found[1:])
        parts.append(({contract.name: shown}, single, double))
    every, answered, truth = (joined([part[kind] for part in parts]) for kind in range(3))
    reference = Reference(every, answered, truth)
    limits = {
        output.name: Limit(
            images_limit_db(output, stored, reference),
            f"{thresholds.IMAGES_MARGIN_DB:g} dB under the noise of float32 on your pictures or the stored ones",
        )
        for output in outputs
    }
    names = [str(path) for path in paths]
    return Probe(every, truth, limits, names, f" on {len(paths)} pictures", own=False)


def _require_keras(artifact: Artifact, stored: Reference, doubled: onnx.ModelProto) -> None:
    from mbexport.accuracy.graph_float64 import evaluate
    from mbexport.compare import sqnr_db

    batch = artifact.manifest.input.shape[0] or 1
    rows = np.arange(batch) % len(_pictures(stored))
    answers = evaluate(doubled, {name: array[rows] for name, array in stored.inputs.items()})
    for output in artifact.manifest.outputs:
        truth, answer = stored.keras_float64[output.name][rows], answers.get(output.name)
        if answer is None or answer.shape != truth.shape:
            found = "another shape" if answer is not None else "no such output"
        else:
            found_db = sqnr_db(*comparable(output, truth, answer))
            if found_db >= thresholds.RAW_GRAPH_DB:
                continue
            found = f"{found_db:.1f} dB"
        raise UntiedGraphError(
            f"--images takes the graph in float64 for its truth, and output {output.name} is not Keras's there "
            f"({found}, at least {thresholds.RAW_GRAPH_DB:.0f} dB expected); leave --images out"
        )


def size_label(contract: InputContract, reference: Reference) -> str:
    """`` at 160x96`` where height and width are dynamic, else nothing."""
    return f" at {size_text(contract.size_of(_pictures(reference)))}" if contract.is_dynamic else ""


def _pictures(reference: Reference) -> NDArray[Any]:
    return next(iter(reference.inputs.values()))
