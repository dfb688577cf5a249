"""What an inner tensor must reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mbexport import thresholds
from mbexport.accuracy.exposing import exposed, float_tensors
from mbexport.accuracy.graph_float64 import evaluate, in_float64
from mbexport.accuracy.limits import narrower
from mbexport.compare import sqnr_db
from mbexport.errors import MbexportError
from mbexport.runtimes.ort import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from mbexport.accuracy.precisions import Precision
    from mbexport.accuracy.probes import Probe
    from mbexport.accuracy.report import ValidationRow
    from mbexport.accuracy.trace import Trace

    Arrays = Mapping[str, NDArray[Any]]


PICTURES = 2
"""The noise is measured on so many: float64 in NumPy is slow."""


def tolerance(model: onnx.ModelProto, trace: Trace, row: ValidationRow, probe: Probe) -> Callable[[str], float]:
    """The least SQNR in dB of a tensor by its name, for the precision that the row's limit is of.

    It is the noise of that very tensor, for between the layers noise differs by 50 dB: the graph in float32, or
    rounded, against itself. Where a graph cannot run so, the limit of the whole has to do.
    """
    whole_db = min(limit.least_db for limit in probe.float32_limits.values()) - thresholds.TENSOR_MARGIN_DB
    precision = narrower(row.precision.effective) if row.mode == "production" else None
    names = [name for name in float_tensors(model) if name in trace]
    try:
        floors_db = _floors_db(model, names, probe.inputs, precision)
    except MbexportError:
        return lambda _name: whole_db
    margin_db = thresholds.TENSOR_MARGIN_DB + (thresholds.PRECISION_MARGINS_DB[precision] if precision else 0.0)

    def least_db(name: str) -> float:
        floor_db = min(floors_db[name], thresholds.TENSOR_MOST_FLOOR_DB)
        return whole_db if math.isnan(floors_db[name]) else floor_db - margin_db

    return least_db


def _floors_db(
    model: onnx.ModelProto, names: Sequence[str], inputs: Arrays, precision: Precision | None
) -> dict[str, float]:
    """SQNR of each tensor, computed with that precision's noise, against the same without."""
    from mbexport.accuracy.rounding import rounded

    static = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    some = {name: array[: static or PICTURES] for name, array in inputs.items()}
    single = run_unoptimized(exposed(model, names), some)
    if precision is None:
        noisy, exact = single, evaluate(in_float64(exposed(model, names)), some)
    else:
        noisy, exact = run_unoptimized(exposed(rounded(model, precision), names), some), single
    return {name: sqnr_db(exact[name], noisy[name]) for name in names}
