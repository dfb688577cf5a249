"""Run one pass and keep its result only where the interface and the outputs stay the same."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mbexport.accuracy.exposing import expose_all
from mbexport.compare import Comparison, centred_log, compare, is_flat
from mbexport.graph import tools
from mbexport.manifest import PassReport
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class PassStep:
    """One pass of a sequence as it went, for whoever watches; ``report`` alone is kept."""

    number: int
    """From 1."""
    total: int
    report: PassReport
    ops_before: dict[str, int]
    """Operator -> count, in the graph that the pass was given."""
    ops_after: dict[str, int]
    """The same in the graph that it made, whether that was kept or not; where it crashed, as far as it got."""
    error: Exception | None = None
    """What it raised, with its traceback."""

    @property
    def ops(self) -> dict[str, int]:
        """The same in the graph that the next pass gets."""
        return self.ops_after if self.report.modified else self.ops_before


@dataclass(frozen=True)
class Guarded:
    """The graph to go on with, its outputs, and what the pass did."""

    model: ir.Model
    outputs: Arrays
    report: PassReport
    ops_after: dict[str, int]
    """Of the graph that the pass made, whether that was kept or not."""
    error: Exception | None = None


def run_model(model: ir.Model, feeds: Arrays, *, expose: bool = False) -> dict[str, NDArray[Any]]:
    """Outputs by name from ONNX Runtime on the CPU, its own graph optimizer off so that only this graph is judged.

    With ``expose`` the results of all nodes.
    """
    proto, constants = tools.light_proto(model)
    if expose:
        expose_all(proto)
    return run_unoptimized(proto, {**feeds, **{name: tensor.numpy() for name, tensor in constants.items()}})


def guarded(
    graph_pass: ir.passes.InPlacePass, model: ir.Model, feeds: Arrays, before: Arrays, limit_db: float
) -> Guarded:
    """Apply ``graph_pass`` to a copy of ``model``.

    A pass that fails, changes the graph's inputs or outputs, or moves an output by more than ``limit_db`` allows, is
    rolled back and the report says why. One whose precondition does not hold has declined, and nothing went wrong.

    Args:
        graph_pass: the pass.
        model: the graph so far, left alone.
        feeds: probe inputs.
        before: ``model``'s outputs on them.
        limit_db: the least SQNR against ``before`` that counts as rounding.

    Raises:
        MemoryError: the machine's failure and not the pass's.
    """
    name = type(graph_pass).__name__
    candidate = model.clone()
    try:
        if not graph_pass(candidate).modified:
            return Guarded(model, before, PassReport(name=name, modified=False), census(model))
        _check_interface(model, candidate)
        after = run_model(candidate, feeds)
        worst = min((_compare(output, before, after, limit_db) for output in model.graph.outputs), key=_standing)
    except MemoryError:
        raise
    except ir.passes.PreconditionError as error:
        return Guarded(model, before, PassReport(name=name, modified=False, declined=_first_line(error)), census(model))
    except Exception as error:  # noqa: BLE001 - whatever a pass does wrong, the graph before it is still right
        report = PassReport(name=name, modified=False, skipped=_first_line(error))
        return Guarded(model, before, report, census(candidate), error)
    report = PassReport(name=name, modified=worst.passed, sqnr_db=worst.sqnr_db, skipped=worst.reason)
    if not worst:
        return Guarded(model, before, report, census(candidate))
    return Guarded(candidate, after, report, census(candidate))


def census(model: ir.Model) -> dict[str, int]:
    """Operator -> count, the most frequent first."""
    ops = Counter(node.op_type for node in model.graph)
    return dict(sorted(ops.items(), key=lambda item: (-item[1], item[0])))


def _check_interface(model: ir.Model, candidate: ir.Model) -> None:
    """Probes of one shape cannot show that an input lost its dynamic batch; the outputs' shapes they do show."""
    for kind in ("inputs", "outputs"):
        old, new = (
            [f"{value.name} {value.dtype}{value.shape if kind == 'inputs' else ''}" for value in getattr(graph, kind)]
            for graph in (model.graph, candidate.graph)
        )
        if old != new:
            raise ir.passes.PostconditionError(f"the {kind} were {', '.join(old)} and became {', '.join(new)}")


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).partition("\n")[0]


def _compare(output: ir.Value, before: Arrays, after: Arrays, limit_db: float) -> Comparison:
    """On logits where the output is a softmax's: probabilities hide errors in all but the likeliest class."""
    name, maker = output.name or "", output.producer()
    old, new = before[name], after[name]
    if not _is_numeric(old) or not _is_numeric(new):
        same = _equal(old, new)
        return Comparison(None, None, None, None, limit_db, same, None if same else f"{name}: other values")
    if maker is not None and maker.op_type == "Softmax" and old.shape == new.shape:
        axis = maker.attributes.get_int("axis", -1)
        old, new = (np.moveaxis(array, axis, -1) for array in (old, new))
        if not is_flat(old):
            old, new = centred_log(old), centred_log(new)
    found = compare(old, new, threshold_db=limit_db)
    return found or replace(found, reason=f"{name}: {found.reason}")


def _is_numeric(output: Any) -> bool:
    """Strings are not, nor are sequences, which come as lists."""
    return isinstance(output, np.ndarray) and output.dtype.kind in "biuf"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(np.array_equal(one, other))


def _standing(comparison: Comparison) -> tuple[bool, float]:
    """From worst to best; bit-equal is best."""
    return comparison.passed, math.inf if comparison.sqnr_db is None else comparison.sqnr_db
