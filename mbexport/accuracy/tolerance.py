"""What an inner tensor must reach: the limit of the whole, or the noise of the precision at that very tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport import thresholds
from mbexport.accuracy.exposing import exposed, float_tensors
from mbexport.accuracy.limits import narrower
from mbexport.compare import sqnr_db
from mbexport.runtimes.ort import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from mbexport.accuracy.precisions import Precision
    from mbexport.accuracy.probes import Probe
    from mbexport.accuracy.report import ValidationRow
    from mbexport.accuracy.trace import Trace

    Arrays = Mapping[str, NDArray[Any]]


def tolerance(model: onnx.ModelProto, trace: Trace, row: ValidationRow, probe: Probe) -> Callable[[str], float]:
    """The least SQNR in dB of a tensor by its name, for the precision that the row's limit is of."""
    whole_db = min(limit.least_db for limit in probe.float32_limits.values()) - thresholds.TENSOR_MARGIN_DB
    precision = narrower(row.precision.effective)
    if row.mode == "parity" or precision is None:
        return lambda _name: whole_db
    floors_db = _floors_db(model, probe.inputs, trace, precision)
    margin_db = thresholds.PRECISION_MARGINS_DB[precision] + thresholds.TENSOR_MARGIN_DB
    return lambda name: min(floors_db[name] - margin_db, whole_db)


def _floors_db(model: onnx.ModelProto, inputs: Arrays, trace: Trace, precision: Precision) -> dict[str, float]:
    from mbexport.accuracy.rounding import rounded

    names = [name for name in float_tensors(model) if name in trace]
    exact = run_unoptimized(exposed(model, names), inputs)
    found = run_unoptimized(exposed(rounded(model, precision), names), inputs)
    return {name: sqnr_db(exact[name], found[name]) for name in names}
