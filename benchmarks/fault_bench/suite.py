"""Every fault in one network: whether ``validate`` catches it, and whether ``--explain`` names the right node."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from fault_bench.batch_norms import batch_norms_of
from fault_bench.draft import Correct
from fault_bench.effect import effect_of, faulty_artifact
from fault_bench.engine import faulty_engines
from fault_bench.fault import Injected
from fault_bench.library import ALL, SESSIONS
from mbexport.artifact import MODEL, read_reference
from mbexport.build import build_model
from mbexport.outputs import compare_output
from mbexport.pipeline import build
from mbexport.runtimes import SessionOptions, load_engine, split_target
from mbexport.validate import Checks, explained, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.artifact import Artifact
    from mbexport.spec import ModelSpec

PARITY = Checks(modes=("parity",))


@dataclass(frozen=True)
class Cell:
    """One network with its weights, and the seed that the faults' places are drawn by."""

    name: str
    spec: ModelSpec
    weights: str = "random"
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """One fault in one cell on one runtime."""

    cell: str
    seed: int
    fault: str
    runtime: str
    effect_db: float | None
    """None where it does not run, or is not finite."""
    limit_db: float
    caught: bool
    culprits: list[str]
    named: str | None
    cause: str | None
    sessions: int

    @property
    def is_visible(self) -> bool:
        """Whether its effect is above the limit: what is not need not be caught."""
        return self.effect_db is None or self.effect_db < self.limit_db

    @property
    def is_named(self) -> bool:
        """The right node, or another node of its layer."""
        layers = {culprit.rpartition("/")[0] for culprit in self.culprits}
        return self.named is not None and (self.named in self.culprits or self.named.rpartition("/")[0] in layers)


def outcomes(cell: Cell, runtimes: Sequence[str]) -> Iterator[Outcome]:
    """Build the cell's network and put one fault after the other into it."""
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        artifact = build(cell.spec, weights=cell.weights, seed=cell.seed, out=Path(folder)).artifact
        network = build_model(cell.spec, weights=cell.weights, seed=cell.seed)
        correct = Correct(onnx.load(artifact.path / MODEL), batch_norms_of(network.model))
        inputs = read_reference(artifact).inputs
        for index, fault in enumerate(ALL):
            injected = fault.inject(correct, np.random.default_rng([cell.seed, index]))
            if injected is None:
                continue
            effect_db = effect_of(correct.model, injected.model, inputs).sqnr_db
            wrong = faulty_artifact(artifact, injected, Path(folder) / f"fault{index}")
            yield from _tried(cell, fault.name, (artifact, wrong), injected, effect_db, runtimes)
        last = frozenset({correct.model.graph.node[-1].name})
        for session_fault in SESSIONS:
            with faulty_engines():
                found = Injected(correct.model, last)
                yield from _tried(cell, session_fault.name, (artifact, artifact), found, -math.inf, runtimes)


def _tried(
    cell: Cell,
    fault: str,
    pair: tuple[Artifact, Artifact],
    injected: Injected,
    effect_db: float,
    runtimes: Sequence[str],
) -> Iterator[Outcome]:
    right, wrong = pair
    for runtime in runtimes:
        report = validate(wrong, [runtime], PARITY)
        (row,) = report.rows
        explanation = None
        if row.passed:  # the engine may mend what the file has wrong, or refuse to look at it
            effect_db = _effect_there(right, wrong, runtime)
        else:
            (explanation,) = explained(wrong, report).explanations
        yield Outcome(
            cell=cell.name,
            seed=cell.seed,
            fault=fault,
            runtime=runtime,
            effect_db=effect_db if math.isfinite(effect_db) else None if effect_db < 0 else 999.0,
            limit_db=row.threshold_db,
            caught=not row.passed,
            culprits=sorted(injected.culprits),
            named=explanation.node if explanation else None,
            cause=explanation.causes[0] if explanation and explanation.causes else None,
            sessions=explanation.sessions if explanation else 0,
        )


def _effect_there(right: Artifact, wrong: Artifact, runtime: str) -> float:
    """SQNR in dB of the wrong file against the right one, both on this runtime, every reference picture at once."""
    reference = read_reference(right)
    engine, device = split_target(runtime)
    answers = []
    for artifact in (right, wrong):
        inputs = reference.inputs
        pictures = next(iter(inputs.values()))
        options = SessionOptions(batch=len(pictures), size=artifact.manifest.input.size_of(pictures))
        with load_engine(engine).open(artifact.model_path(runtime), device, options) as session:
            answers.append(session.run(inputs))
    (output,) = right.manifest.outputs
    found = compare_output(output, answers[0][output.name].astype(np.float64), answers[1], -math.inf)
    return math.inf if found.sqnr_db is None and found.passed else found.sqnr_db or -math.inf
