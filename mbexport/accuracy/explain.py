"""Why a runtime's answers are wrong: the first node that is, its Keras layer, and the likely cause."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import onnx

from mbexport.accuracy.causes import Culprit, causes
from mbexport.accuracy.exposing import float_tensors
from mbexport.accuracy.report import Explanation, NodeError
from mbexport.accuracy.search import Found, Search
from mbexport.accuracy.tolerance import Tolerances
from mbexport.errors import ArtifactError, EngineError
from mbexport.runtimes import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.accuracy.probes import Probe
    from mbexport.accuracy.report import ValidationRow
    from mbexport.accuracy.trace import Trace
    from mbexport.artifact import Artifact

    Arrays = Mapping[str, NDArray[Any]]


class Explainer:
    """Finds the first node of a row's runtime whose output leaves the tolerance.

    Args:
        artifact: the artifact.
        trace: what its tensors held when it was built.
        probe: the reference inputs of the first size.
        threads: threads for each engine.
    """

    def __init__(self, artifact: Artifact, trace: Trace, probe: Probe, threads: int | None) -> None:
        self._artifact = artifact
        self._trace = trace
        self._probe = probe
        self._threads = threads
        self._opened: dict[Path, tuple[onnx.ModelProto, Tolerances]] = {}

    def explain(self, row: ValidationRow) -> Explanation:
        """Of what ``validate`` found, failed or not.

        Raises:
            ArtifactError: no tensor of the model is in the trace.
        """
        model, tolerances = self._open(self._artifact.model_path(row.runtime))
        contract = self._artifact.manifest.input
        size, batch = contract.size_of(self._probe.pictures), contract.shape[0] or row.batch
        options = SessionOptions(mode=row.mode, threads=self._threads, batch=batch, size=size)
        search = Search(model, row.runtime, options, self._probe.inputs, self._trace, tolerances.of(row))
        found = search.first_wrong()
        nodes = _nodes(search, found)
        if found is None:
            return Explanation(runtime=row.runtime, mode=row.mode, nodes=nodes, sessions=search.sessions)
        return _explained(found, search, row, nodes)

    def _open(self, path: Path) -> tuple[onnx.ModelProto, Tolerances]:
        if path not in self._opened:
            model = onnx.load(path)
            if not set(float_tensors(model)) & self._trace.keys():
                raise ArtifactError(f"{path.parent}: trace.npz is of another graph; build the artifact again")
            self._opened[path] = model, Tolerances(model, self._trace, self._probe)
        return self._opened[path]


def _explained(found: Found, search: Search, row: ValidationRow, nodes: list[NodeError]) -> Explanation:
    made = {name: node for node in search.model.graph.node for name in node.output}
    precision = _precision(row)
    if found.tensor is None:
        suspects = list(dict.fromkeys(made[name].name for name in found.suspects))
        return Explanation(
            runtime=row.runtime,
            mode=row.mode,
            causes=[*precision, "each node is right when it is looked at alone: the engine's fusion of them is wrong"],
            suspects=suspects,
            nodes=nodes,
            sessions=search.sessions,
        )
    node = made[found.tensor]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in search.model.graph.initializer}
    known = {**constants, **search.inputs, **found.arrays}
    culprit = Culprit(node, search.model, known, search.trace[found.tensor])
    return Explanation(
        runtime=row.runtime,
        mode=row.mode,
        node=node.name,
        op=node.op_type,
        layer=layer_of(node.name),
        input_errors={
            name: _finite(search.sqnr_db(name, known[name]))
            for name in node.input
            if name in search.trace and name in known
        },
        sqnr_db=_finite(search.sqnr_db(found.tensor, known[found.tensor])) if found.tensor in known else None,
        tolerance_db=search.tolerance_db(found.tensor),
        causes=[*precision, *([found.error] if found.error else causes(culprit))],
        nodes=nodes,
        sessions=search.sessions,
    )


def _precision(row: ValidationRow) -> list[str]:
    asked, done = row.precision.requested, row.precision.effective
    return [f"precision: the engine computes in {done}, not in {asked}"] if asked == "f32" != done and done else []


def _nodes(search: Search, found: Found | None) -> list[NodeError]:
    """From one run; what looks wrong there before anything is wrong is looked at alone."""
    names = [name for name in float_tensors(search.model) if name in search.trace]
    try:
        arrays = search.run(names)
    except EngineError:
        return []
    sound = names[: names.index(found.tensor)] if found and found.tensor else [] if found else names
    for name in [name for name in sound if not search.is_right(name, arrays[name])]:
        with contextlib.suppress(EngineError):
            arrays |= search.run([name])
    made = {name: node for node in search.model.graph.node for name in node.output}
    return [
        NodeError(
            node=made[name].name,
            op=made[name].op_type,
            layer=layer_of(made[name].name),
            sqnr_db=_finite(search.sqnr_db(name, arrays[name])),
            within=search.is_right(name, arrays[name]),
        )
        for name in names
    ]


def layer_of(node: str) -> str:
    """The Keras layer of a node, which mbexport names ``layer/Operator``."""
    return node.rpartition("/")[0] or node


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
