"""Run one pass and keep its result only where the outputs stay the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from mbexport.artifact import PassReport
from mbexport.compare import Comparison, centred_log, compare
from mbexport.runtimes.ort import engine_errors, import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


def run_model(model: ir.Model, feeds: Arrays) -> dict[str, NDArray[Any]]:
    """Outputs by name from ONNX Runtime on the CPU, its own graph optimizer off so that only this graph is judged."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    data = ir.to_proto(model).SerializeToString()
    with engine_errors("ONNX Runtime refuses the graph"):
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def guarded(
    graph_pass: ir.passes.InPlacePass, model: ir.Model, feeds: Arrays, before: Arrays, limit_db: float
) -> tuple[ir.Model, Arrays, PassReport]:
    """Apply ``graph_pass`` to a copy of ``model``.

    Args:
        graph_pass: the pass.
        model: the graph so far, left alone.
        feeds: probe inputs.
        before: ``model``'s outputs on them.
        limit_db: the least SQNR against ``before`` that counts as rounding.

    Returns:
        The graph to go on with, its outputs, and the report. A pass that fails, or moves an output by more than
        ``limit_db`` allows, is rolled back and the report says why.
    """
    name = type(graph_pass).__name__
    candidate = model.clone()
    try:
        if not graph_pass(candidate).modified:
            return model, before, PassReport(name=name, modified=False)
        after = run_model(candidate, feeds)
        worst = min((_compare(output, before, after, limit_db) for output in candidate.graph.outputs), key=_standing)
    except Exception as error:  # noqa: BLE001 - whatever a pass does wrong, the graph before it is still right
        return model, before, PassReport(name=name, modified=False, skipped=_first_line(error))
    if not worst or list(after) != list(before):
        reason = worst.reason or "the outputs are not those before it"
        return model, before, PassReport(name=name, modified=False, sqnr_db=worst.sqnr_db, skipped=reason)
    return candidate, after, PassReport(name=name, modified=True, sqnr_db=worst.sqnr_db)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).partition("\n")[0]


def _compare(output: ir.Value, before: Arrays, after: Arrays, limit_db: float) -> Comparison:
    """On logits where the output is a softmax's: probabilities hide errors in all but the likeliest class."""
    name, maker = output.name or "", output.producer()
    view = centred_log if maker is not None and maker.op_type == "Softmax" else lambda array: array
    return compare(view(before[name]), view(after[name]), threshold_db=limit_db)


def _standing(comparison: Comparison) -> tuple[bool, float]:
    """From worst to best; bit-equal is best."""
    return comparison.passed, math.inf if comparison.sqnr_db is None else comparison.sqnr_db
