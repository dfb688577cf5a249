"""What a fault is: where it can stand, and how it is put there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fault_bench.draft import Draft

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx

    from fault_bench.draft import Correct

    Places = Callable[[Draft], list[onnx.NodeProto]]
    Put = Callable[[Draft, onnx.NodeProto, np.random.Generator], None]


@dataclass(frozen=True)
class Injected:
    """A model with one fault.

    ``culprits`` are the nodes whose result is the first wrong one: that node of the right graph, and what was put in
    beside it. Any of them counts as rightly named.
    """

    model: onnx.ModelProto
    culprits: frozenset[str]

    @property
    def layers(self) -> frozenset[str]:
        """The culprits' Keras layers: mbexport names a node ``layer/Operator``."""
        return frozenset(name.rpartition("/")[0] for name in self.culprits)


@dataclass(frozen=True)
class Fault:
    """One kind of fault. ``places`` are the nodes that it can hit, ``put`` puts it there."""

    name: str
    places: Places
    put: Put

    def inject(self, correct: Correct, rng: np.random.Generator) -> Injected | None:
        """The fault at a place drawn by ``rng``; None where the network has no place for it."""
        draft = Draft(correct)
        places = self.places(draft)
        if not places:
            return None
        place = places[rng.integers(len(places))]
        self.put(draft, place, rng)
        return Injected(draft.model, frozenset({place.name, *draft.inserted}))


def fault(name: str, places: Places) -> Callable[[Put], Fault]:
    """Make a fault of the function that puts it into a draft, at one of ``places``."""
    return lambda put: Fault(name, places, put)
