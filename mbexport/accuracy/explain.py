"""Why a runtime's answers are wrong: the first node that is, its Keras layer, and the likely cause."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import onnx

from mbexport.accuracy.causes import Culprit, causes
from mbexport.accuracy.exposing import results
from mbexport.accuracy.limits import Limits, narrower
from mbexport.accuracy.report import Explanation, NodeError
from mbexport.accuracy.search import Found, Search
from mbexport.accuracy.tolerance import Tolerances
from mbexport.accuracy.trial import Trial
from mbexport.artifact import read_trace
from mbexport.errors import ArtifactError, EngineError
from mbexport.pictures import REFERENCE_PICTURES
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


RIGHT_HERE = "on the first four reference pictures every node is right; the row"


class Explainer:
    """Finds the first node of a row's runtime whose output leaves the tolerance.

    Args:
        artifact: the artifact.
        probe: the reference inputs of the first size.
        threads: threads for each engine.
    """

    def __init__(self, artifact: Artifact, probe: Probe, threads: int | None) -> None:
        self._artifact = artifact
        self._probe = probe.first(REFERENCE_PICTURES)  # those that the trace is of
        self._threads = threads
        self._opened: dict[Path, tuple[onnx.ModelProto, Trace, Tolerances]] = {}

    def explain(self, row: ValidationRow) -> Explanation:
        """Of what ``validate`` found, failed or not.

        Raises:
            ArtifactError: no tensor of the model is in its trace.
        """
        model, trace, tolerances = self._open(self._artifact.model_path(row.runtime))
        contract = self._artifact.manifest.input
        pictures = self._probe.pictures
        batch = contract.shape[0] or min(row.batch, len(pictures))
        options = SessionOptions(mode=row.mode, threads=self._threads, batch=batch, size=contract.size_of(pictures))
        search = Search(model, row.runtime, options, self._probe.inputs, trace, tolerances.of(None))
        right_here = row.passed or self._is_right(row, batch)
        precision = narrower(row.precision.effective or _precision_of(search)) if row.mode == "production" else None
        search.tolerance_db = tolerances.of(precision)
        found = None if right_here else search.first_wrong()
        nodes = _nodes(search, found)
        if found is None:
            elsewhere = [] if row.passed else [f"{RIGHT_HERE} failed elsewhere: {row.reason}"]
            return Explanation(
                runtime=row.runtime, mode=row.mode, causes=elsewhere, nodes=nodes, sessions=search.sessions
            )
        return _explained(found, search, row, nodes)

    def _is_right(self, row: ValidationRow, batch: int) -> bool:
        """Whether the row's failure is none of the pictures that are looked at here."""
        limits = Limits(self._artifact)
        trial = Trial(self._artifact, row.runtime, row.mode, self._threads, limits)
        trial.run([self._probe], batch)
        return all(one.comparison.passed for one in trial.tried)

    def _open(self, path: Path) -> tuple[onnx.ModelProto, Trace, Tolerances]:
        if path not in self._opened:
            model, trace = onnx.load(path), read_trace(self._artifact, path.name)
            if not set(results(model)) & trace.keys():
                raise ArtifactError(f"{path.parent}: the trace of {path.name} is of another graph; build it again")
            self._opened[path] = model, trace, Tolerances(model, trace, self._probe)
        return self._opened[path]


def _explained(found: Found, search: Search, row: ValidationRow, nodes: list[NodeError]) -> Explanation:
    made = {name: node for node in search.model.graph.node for name in node.output}
    precision = _precision(row)
    narrow = row.mode == "production" and narrower(row.precision.effective or search.precision) is not None
    if found.tensor is None and narrow:
        nothing = (
            f"no node stands out of {search.precision}'s own rounding: what is wrong is hardly louder, "
            "and the parity row tells more"
        )
        return Explanation(runtime=row.runtime, mode=row.mode, causes=[nothing], nodes=nodes, sessions=search.sessions)
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
    culprit = Culprit(node, search.model, known, search.trace[found.tensor], is_rounded=narrow)
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
        tolerance_db=_finite(search.tolerance_db(found.tensor)),
        causes=[*precision, *([found.error] if found.error else causes(culprit))],
        nodes=nodes,
        sessions=search.sessions,
    )


def _precision_of(search: Search) -> str | None:
    """What the engine computes the first product in, where it never got as far as to say so of the whole."""
    products = (node.output[0] for node in search.model.graph.node if node.op_type in {"Conv", "Gemm", "MatMul"})
    search.is_right_alone(next((name for name in products if name in search.trace), next(iter(search.trace))))
    return search.precision


def _precision(row: ValidationRow) -> list[str]:
    asked, done = row.precision.requested, row.precision.effective
    return [f"precision: the engine computes in {done}, not in {asked}"] if asked == "f32" != done and done else []


def _nodes(search: Search, found: Found | None) -> list[NodeError]:
    """From one run; what looks wrong there before anything is wrong is looked at alone."""
    names = [name for name in results(search.model) if name in search.trace]
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
