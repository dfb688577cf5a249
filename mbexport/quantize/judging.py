"""What 8 bits do to the answers, on pictures that did not calibrate them."""

from __future__ import annotations

import math
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.artifact import MODEL
from mbexport.errors import InputError
from mbexport.quantize.change import change
from mbexport.quantize.derive import bf16_sqnr_db
from mbexport.quantize.engine_runs import answers
from mbexport.quantize.shown import MOST_CALIBRATING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputContract
    from mbexport.quantities import Mode
    from mbexport.quantize.change import Change
    from mbexport.quantize.shown import Shown

BATCH = 8
"""Pictures at once where the network takes any number."""
BF16_MARGIN_DB = 10.0
"""A network of random weights has no accuracy: it may stand so far under the noise that bf16 makes in it."""


class Judging:
    """Which pictures calibrate and which judge, and the float network's answers to all of them.

    Raises:
        InputError: fewer pictures than two static batches.
    """

    def __init__(self, artifact: Artifact, shown: Shown, progress: Callable[[str], None]) -> None:
        self._artifact = artifact
        self._shown = shown
        self._progress = progress
        self.contract = shown.contract
        static = shown.contract.shape[0]
        self.batch: int = static or BATCH
        if len(shown.pixels) < 2 * self.batch:
            raise InputError(
                f"{artifact.path} takes batches of {self.batch}: at least {2 * self.batch} pictures are needed to "
                f"calibrate and to judge, and {len(shown.pixels)} can be read"
            )
        self._unit: int = static or 1  # a static batch takes no part of one
        self._count = len(shown.pixels) // self._unit * self._unit
        self.left_out = len(shown.pixels) - self._count
        self.calibrating = min(self._count, max(MOST_CALIBRATING // self._unit, 1) * self._unit)

    @property
    def needs_twin(self) -> bool:
        """Whether too few pictures are left to judge."""
        return self._count < 2 * self.calibrating

    @property
    def first_judged(self) -> int:
        """The place of the first picture that judges; those before it calibrated what is judged."""
        return self._count // 2 // self._unit * self._unit if self.needs_twin else self.calibrating

    @property
    def judged(self) -> int:
        """How many judge."""
        return self._count - self.first_judged

    @property
    def output(self) -> OutputContract:
        """The one that is judged: the first that classifies, if any does."""
        outputs = self._artifact.manifest.outputs
        return next((output for output in outputs if output.kind != "features"), outputs[0])

    @cached_property
    def exact(self) -> NDArray[np.float32]:
        """The float network's answers, on ONNX Runtime's CPU."""
        self._progress("answers of float32")
        return self._answers(self._artifact.path / MODEL, "ort:cpu", range(self._count), "parity")

    def change(self, model: onnx.ModelProto, target: str) -> Change:
        """What a model answers on a target, at the engine's defaults, beside the float network."""
        self._progress(f"judge on {target}")
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
            path = Path(folder) / MODEL
            path.write_bytes(model.SerializeToString())
            return self._change(self._answers(path, target, self._judging, "production"))

    def plain_change(self, target: str) -> Change:
        """What the float network itself answers on a target at the engine's defaults, which may be bf16."""
        self._progress(f"float32's own file on {target}")
        path = self._artifact.model_path(target)
        return self._change(self._answers(path, target, self._judging, "production"))

    @property
    def _judging(self) -> range:
        return range(self.first_judged, self._count)

    def _change(self, found: NDArray[np.float32]) -> Change:
        places, labels = self._judging, self._shown.labels
        shown = None if labels is None else labels[places.start : places.stop]
        return change(self.output, self.exact[places.start :], found, shown)

    def _answers(self, model: Path, target: str, places: range, mode: Mode) -> NDArray[np.float32]:
        batches = self._shown.batches(places, self.batch)
        return answers(model, target, mode, self._shown.contract, batches, self.output.name)


def least_sqnr_db(artifact: Artifact, output: OutputContract) -> float | None:
    """What is asked of an output that has no accuracy, of random weights or features; None of others.

    NaN where bf16 leaves no finite distance, so that there is nothing to ask for.
    """
    if artifact.manifest.weights.kind != "random" and output.kind != "features":
        return None
    return bf16_sqnr_db(artifact).get(output.name, math.nan) - BF16_MARGIN_DB
