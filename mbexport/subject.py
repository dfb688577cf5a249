"""What is exported: a network with its weights, and everything that the artifact is to say of it."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mbexport.accuracy.chance import free_numbers
from mbexport.convert import INPUT
from mbexport.pictures import REFERENCE_PICTURES, joined, reference_count, reference_pictures
from mbexport.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.contract import InputRule
    from mbexport.labels import Label
    from mbexport.manifest import OutputKind, WeightsOrigin
    from mbexport.network import Network
    from mbexport.spec import ModelSpec


@dataclass(frozen=True)
class About:
    """What is known of a network beside its numbers."""

    slug: str
    origin: WeightsOrigin
    sizes: tuple[tuple[int, int], ...]
    """Height and width in pixels that it is compared at, its own first; several where they are dynamic."""
    rule: InputRule | None = None
    """None where the graph must tell."""
    kind: OutputKind | None = None
    """What each output is; None where the graph must tell."""
    spec: ModelSpec | None = None
    """None for a user's own network."""
    labels: list[Label] | None = None
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def is_dynamic(self) -> bool:
        return len(self.sizes) > 1


@dataclass(frozen=True)
class Subject:
    """One network, ready to be exported."""

    about: About
    network: Network
    at_size: Callable[[tuple[int, int]], Network] | None = None
    """The network of dynamic size, with the same weights, as it is built for another size."""


def reference_of(subject: Subject, rule: InputRule, kinds: Mapping[str, OutputKind]) -> Reference:
    """The network's answers in both precisions to pictures made from a fixed seed, at each size. Channels-last.

    A network of dynamic size is run at its other sizes as Keras builds it for that very size, with the same weights:
    that is what its file promises to be. Keras's own network without a size is another one, whose padding would be
    trusted unseen.
    """
    first, *others = subject.about.sizes
    reference = _answers(subject.network, first, rule, kinds)
    found = []
    for size in others:
        assert subject.at_size is not None
        found.append(_answers(subject.at_size(size), size, rule, kinds))
        gc.collect()  # Keras models are cycles: those of one size would stay while the next are built
    return replace(reference, others=tuple(found))


def _answers(network: Network, size: tuple[int, int], rule: InputRule, kinds: Mapping[str, OutputKind]) -> Reference:
    """To four pictures, and to more where the answers hold few numbers."""
    parts = [_answers_to(reference_pictures(*size), network, rule)]
    sides = {name: answer.shape[1:] for name, answer in parts[0].keras_float64.items()}
    count = reference_count(min(free_numbers(kinds[name], shape) for name, shape in sides.items()))
    more = reference_pictures(*size, count)[REFERENCE_PICTURES:]
    parts += [
        _answers_to(more[start : start + REFERENCE_PICTURES], network, rule)
        for start in range(0, len(more), REFERENCE_PICTURES)
    ]
    return Reference(
        inputs=joined([part.inputs for part in parts]),
        keras_float32=joined([part.keras_float32 for part in parts]),
        keras_float64=joined([part.keras_float64 for part in parts]),
    )


def _answers_to(shown: NDArray[np.uint8], network: Network, rule: InputRule) -> Reference:
    inputs = rule.apply(shown[..., : network.picture_shape[2]])

    def named(outputs: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(network.output_names, outputs, strict=True))

    single, double = named(network.float32(inputs)), named(network.float64(inputs))
    return Reference(inputs={INPUT: inputs}, keras_float32=single, keras_float64=double)
