"""The least SQNR at which a runtime passes, and where that number comes from."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from mbexport import thresholds
from mbexport.accuracy.chance import chance_db
from mbexport.accuracy.limit import Limit
from mbexport.outputs import float32_floor_db, margin_db, threshold_db

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from mbexport.accuracy.narrow_limits import NarrowLimits
    from mbexport.accuracy.precisions import Precision
    from mbexport.accuracy.probes import Probe
    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputContract
    from mbexport.quantities import Mode
    from mbexport.reference import Reference


def float32_limits(
    outputs: Sequence[OutputContract], reference: Reference, who: str = "Keras's own float32"
) -> dict[str, Limit]:
    """Output -> limit of a runtime that computes in float32: so much under the noise floor of ``who``'s float32.

    Raises:
        ArtifactError: the reference is too noisy to prove anything.
    """
    found = {}
    for output in outputs:
        floor_db = float32_floor_db(output, reference)
        origin = f"{margin_db(output, reference):.3g} dB under {who}, {floor_db:.1f} dB from float64"
        found[output.name] = Limit(threshold_db(output, reference), origin)
    return found


def narrower(precision: str | None) -> Precision | None:
    """The precision, where its noise can be measured; None for float32 and what is not known."""
    return next((known for known in thresholds.PRECISION_MARGINS_DB if known == precision), None)


class Limits:
    """The limits of an artifact's outputs, by what an engine computes in.

    Those of float32 come with the inputs. Those of a narrower precision are measured where an engine turns out to
    compute in it: the artifact's own graph, its operands rounded to that precision, against itself.
    """

    def __init__(self, artifact: Artifact, min_sqnr_db: float | None = None) -> None:
        self._artifact = artifact
        self._min_sqnr_db = min_sqnr_db
        self.are_derived = min_sqnr_db is None
        self._measured: dict[tuple[int, Precision], Mapping[str, Limit]] = {}

    def of(self, probe: Probe, precision: str, target: str, mode: Mode) -> Mapping[str, Limit]:
        """Output -> limit on this probe; ``precision`` is that which the engine of ``target`` says it computes in."""
        if self._min_sqnr_db is not None:
            asked = Limit(self._min_sqnr_db, "asked for with --min-sqnr")
            return dict.fromkeys((output.name for output in self._artifact.manifest.outputs), asked)
        if self._artifact.manifest.precision != "f32":
            return self._of_file.of(probe, target, mode)
        narrow = narrower(precision)
        if narrow is None:
            return probe.float32_limits
        key = id(probe), narrow
        if key not in self._measured:
            self._measured[key] = self._measure(probe, narrow)
        return self._measured[key]

    @cached_property
    def _of_file(self) -> NarrowLimits:
        from mbexport.accuracy.narrow_limits import NarrowLimits

        return NarrowLimits(self._artifact)

    @cached_property
    def _model(self) -> onnx.ModelProto:
        import onnx

        from mbexport.artifact import MODEL

        return onnx.load(self._artifact.path / MODEL)

    def _measure(self, probe: Probe, precision: Precision) -> dict[str, Limit]:
        from mbexport.accuracy.rounding import precision_floor_db

        made = {value.name for value in self._model.graph.output}  # a wrong file may lack one, which the row says
        outputs = [output for output in self._artifact.manifest.outputs if output.name in made]
        floors_db = precision_floor_db(self._model, probe.inputs, outputs, precision)
        whose = f"this graph with its numbers rounded to {precision}"
        limits = dict(probe.float32_limits)
        for output in outputs:
            floor_db, by_chance_db = floors_db[output.name], chance_db(output, probe.truth[output.name])
            margin_db = thresholds.PRECISION_MARGINS_DB[precision] + by_chance_db
            if math.isnan(floor_db):  # the graph itself holds what is no number, or rounds to it
                continue
            least_db = max(floor_db - margin_db, 0.0)  # a wrong graph brings its own floor down
            origin = f"{margin_db:.1f} dB under {whose}, {floor_db:.1f} dB from float32"
            if least_db < limits[output.name].least_db:
                limits[output.name] = Limit(least_db, origin)
        return limits
