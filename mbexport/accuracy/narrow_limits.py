"""Limits of int8 and f16 artifacts: the file computed node by node as it says, and how far engines may stand off.

Such a file states its own rounding, so what a right engine answers is known up to ties and to what it fuses. How good
that answer is was judged when the file was made, and stands in the manifest; here an engine is held to it. A file that
was damaged since brings its own noise down, and so is held to what it was on the pictures that it was measured on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from mbexport import thresholds
from mbexport.accuracy.chance import chance_db
from mbexport.accuracy.limit import Limit
from mbexport.accuracy.rounding import file_answers
from mbexport.compare import sqnr_db
from mbexport.outputs import comparable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mbexport.accuracy.probes import Probe
    from mbexport.artifact import Artifact
    from mbexport.quantities import Mode


@dataclass
class NarrowLimits:
    """The limits of an artifact that was derived from one in float32."""

    artifact: Artifact
    _floors_db: dict[tuple[int, Path], dict[str, float]] = field(default_factory=dict)

    def of(self, probe: Probe, target: str, mode: Mode) -> Mapping[str, Limit]:
        """Output -> limit on this probe, for the model file of a target.

        Raises:
            ArtifactError, EngineError: ONNX Runtime cannot run the file as it stands.
        """
        key = id(probe), self.artifact.model_path(target)
        if key not in self._floors_db:
            self._floors_db[key] = self._measured_db(probe, key[1])
        found = {}
        for output in self.artifact.manifest.outputs:
            margin_db = thresholds.FILE_MARGIN_DB + chance_db(output, probe.truth[output.name])
            floor_db, whose = self._floors_db[key][output.name], "this file computed node by node"
            recorded_db = self._recorded_db(key[1], output.name) if probe.own else None
            if recorded_db is not None and not floor_db >= recorded_db:
                floor_db, whose = recorded_db, "this file as it was made"
            bf16_db = self._bf16_db(output.name)
            if mode == "production" and target.startswith("openvino:") and bf16_db is not None:
                # OpenVINO computes what is not 8-bit in bf16 where the CPU has it; both noises add up.
                floor_db, whose = _together_db(floor_db, bf16_db), f"{whose}, the rest in bf16"
            origin = f"{margin_db:.1f} dB under {whose}, {floor_db:.1f} dB from Keras's float64"
            least_db = probe.float32_limits[output.name].least_db if math.isnan(floor_db) else floor_db - margin_db
            found[output.name] = Limit(max(least_db, 0.0), origin)
        return found

    def _recorded_db(self, file: Path, output: str) -> float | None:
        derivation = self.artifact.manifest.derivation
        model = derivation.models.get(file.name) if derivation is not None else None
        return model.sqnr_db.get(output) if model is not None else None

    def _bf16_db(self, output: str) -> float | None:
        derivation = self.artifact.manifest.derivation
        return derivation.bf16_sqnr_db.get(output) if derivation is not None else None

    def _measured_db(self, probe: Probe, file: Path) -> dict[str, float]:
        answers = file_answers(onnx.load(file), probe.inputs)
        outputs = self.artifact.manifest.outputs
        return {
            output.name: sqnr_db(*comparable(output, probe.truth[output.name], answers[output.name]))
            for output in outputs
        }


def _together_db(one_db: float, other_db: float) -> float:
    """SQNR where two noises that know nothing of each other add up."""
    return -10 * math.log10(10 ** (-one_db / 10) + 10 ** (-other_db / 10))
