"""Bisection for the first node whose output is wrong on a runtime.

It runs over the tensors that all later ones hang on, so that the engine keeps its fusions everywhere else; then every
tensor of the one stretch that goes wrong is looked at.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport.accuracy.exposing import cuts, exposed, results
from mbexport.accuracy.trace import sampled
from mbexport.accuracy.trial import run_batches
from mbexport.compare import sqnr_db
from mbexport.errors import ArtifactError, EngineError
from mbexport.runtimes import load_engine, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from mbexport.accuracy.trace import Trace
    from mbexport.runtimes import SessionOptions

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Found:
    """The first wrong tensor, and what the engine held around it; or the stretch that no closer look resolves."""

    tensor: str | None
    arrays: Arrays
    """Tensors of the stretch, whole, as the engine computed them."""
    suspects: Sequence[str]
    """Tensors, one of which is wrong although each is right when it is looked at."""
    error: str | None = None
    """What the engine said, where it stopped at this tensor."""


@dataclass
class Search:
    """A model on a target, cut open again and again."""

    model: onnx.ModelProto
    target: str
    options: SessionOptions
    inputs: Arrays
    trace: Trace
    tolerance_db: Callable[[str], float]
    sessions: int = field(default=0)
    precision: str | None = None
    """What the engine said that it computes in, once it has run."""

    def first_wrong(self) -> Found:
        """Where the graph goes wrong, which it does as a whole."""
        order = self._known(results(self.model))
        ends = [name for name in order if name in {output.name for output in self.model.graph.output}]
        gates = [name for name in self._known(cuts(self.model)) if name not in ends]
        low, high = -1, len(gates)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.is_right_alone(gates[middle]) else (low, middle)
        start = order.index(gates[low]) + 1 if low >= 0 else 0
        stop = order.index(gates[high]) + 1 if high < len(gates) else len(order)
        return self._closer(order[start:stop])

    def sqnr_db(self, name: str, array: NDArray[Any]) -> float:
        """Of a tensor against what it held in the build; NaN where it is not finite or of another shape."""
        expected = self.trace[name]
        if array.shape != expected.shape:
            return float("nan")
        return sqnr_db(expected.values, sampled(array))

    def run(self, tensors: Sequence[str]) -> dict[str, NDArray[Any]]:
        """These tensors as the engine computes them.

        Raises:
            EngineError: it cannot.
        """
        self.sessions += 1
        engine, device = split_target(self.target)
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
            path = Path(folder) / "part.onnx"
            path.write_bytes(exposed(self.model, tensors).SerializeToString())
            try:
                with load_engine(engine).open(path, device, self.options) as session:
                    self.precision = session.facts().precision
                    return run_batches(session, self.inputs, self.options.batch)
            except ArtifactError as error:  # the part is mbexport's own, and no artifact
                raise EngineError(str(error)) from error

    def is_right(self, name: str, array: NDArray[Any]) -> bool:
        return self.sqnr_db(name, array) >= self.tolerance_db(name)

    def is_right_alone(self, name: str) -> bool:
        """In a run that gives out nothing else; one that the engine cannot do is not right."""
        try:
            return self.is_right(name, self.run([name])[name])
        except EngineError:
            return False

    def _known(self, tensors: Sequence[str] | Any) -> list[str]:
        return [name for name in tensors if name in self.trace]

    def _closer(self, stretch: list[str]) -> Found:
        """In one run where the engine can, else tensor by tensor up to the one where it stops."""
        before = self._before(stretch)
        try:
            arrays = self.run([*before, *stretch])
        except EngineError:
            return self._stops_at(stretch)
        for name in stretch:
            # Alone as well: OpenVINO gives out inner tensors that later nodes have overwritten in place.
            if not self.is_right(name, arrays[name]) and not self.is_right_alone(name):
                return Found(name, arrays, ())
        return Found(None, arrays, stretch)

    def _stops_at(self, stretch: list[str]) -> Found:
        for name in stretch:
            try:
                arrays = self.run([name])
            except EngineError as error:
                return Found(name, {}, (), str(error))
            if not self.is_right(name, arrays[name]):
                return Found(name, arrays, ())
        return Found(None, {}, stretch)

    def _before(self, stretch: Sequence[str]) -> list[str]:
        """What the nodes of the stretch read from before it."""
        inside = [node for node in self.model.graph.node if set(stretch).intersection(node.output)]
        made = {name for node in self.model.graph.node for name in node.output}
        read = dict.fromkeys(name for node in inside for name in node.input)
        return [name for name in read if name in made and name not in stretch]
