"""What an inner tensor must reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport import thresholds
from mbexport.accuracy.exposing import exposed, results
from mbexport.accuracy.graph_float64 import evaluate, in_float64
from mbexport.compare import sqnr_db
from mbexport.errors import MbexportError
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from mbexport.accuracy.precisions import Precision
    from mbexport.accuracy.probes import Probe
    from mbexport.accuracy.trace import Trace

    Arrays = Mapping[str, NDArray[Any]]


PICTURES = 2
"""The noise is measured on so many: float64 in NumPy is slow."""


class Tolerances:
    """The least SQNR in dB of a graph's tensors, for each precision that rows are held to.

    It is the noise of that very tensor, for between the layers noise differs by 50 dB: the graph in float32, or
    rounded, against itself. Where a graph cannot run so, the limit of the whole has to do in float32, and in narrower
    precisions what is no number counts alone.
    """

    def __init__(self, model: onnx.ModelProto, trace: Trace, probe: Probe) -> None:
        self._model = model
        self._names = [name for name in results(model) if name in trace]
        self._inputs = probe.inputs
        least_db = min(limit.least_db for limit in probe.float32_limits.values())
        self._whole_db = least_db - thresholds.TENSOR_MARGIN_DB
        self._floors_db: dict[Precision | None, Mapping[str, float]] = {}

    def of(self, precision: Precision | None) -> Callable[[str], float]:
        """A tensor's by its name; ``precision`` None is float32."""
        if precision not in self._floors_db:
            self._floors_db[precision] = self._measured(precision)
        floors_db = self._floors_db[precision]
        margin_db = thresholds.TENSOR_MARGIN_DB + (thresholds.PRECISION_MARGINS_DB[precision] if precision else 0.0)
        unknown_db = -math.inf if precision else self._whole_db

        def least_db(name: str) -> float:
            floor_db = floors_db.get(name, math.nan)
            if math.isnan(floor_db):
                return unknown_db
            return min(floor_db, thresholds.TENSOR_MOST_FLOOR_DB) - margin_db

        return least_db

    def _measured(self, precision: Precision | None) -> dict[str, float]:
        """SQNR of each tensor, computed with that precision's noise, against the same without; none where it fails."""
        from mbexport.accuracy.rounding import rounded

        static = self._model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        rows = {name: np.arange(static or PICTURES) % len(array) for name, array in self._inputs.items()}
        some = {name: array[rows[name]] for name, array in self._inputs.items()}
        opened = exposed(self._model, self._names)
        try:
            single = run_unoptimized(opened, some)
            if precision is None:
                noisy, exact = single, evaluate(in_float64(opened), some)
            else:
                noisy, exact = run_unoptimized(exposed(rounded(self._model, precision), self._names), some), single
        except MbexportError:
            return {}
        # The evaluator floors the size of a Resize where engines round it.
        return {
            name: sqnr_db(exact[name], noisy[name]) for name in self._names if exact[name].shape == noisy[name].shape
        }
