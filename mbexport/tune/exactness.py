"""Whether a runtime's float32 answers are right: others are judged by them, and speed without them is worth nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mbexport.artifact import read_reference
from mbexport.errors import EngineError
from mbexport.outputs import compare_output, threshold_db
from mbexport.tune.answers import Probe, answers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputContract
    from mbexport.reference import Reference
    from mbexport.tune.variants import Variant

    Arrays = Mapping[str, NDArray[Any]]

_SAME_SHARE = 0.01
"""Classes whose probabilities differ by less may change places: at the least noise floor that proves anything, 60 dB,
rounding moves a logit of 10 by 0.01, and so a probability by 0.0025 at most."""


@dataclass(frozen=True)
class Exactness:
    """The artifact's reference inputs and their float64 truth, at the limits that ``validate`` holds float32 to."""

    artifact: Artifact
    stored: Reference
    limits_db: Mapping[str, float]

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Read them.

        Raises:
            ArtifactError: the stored reference cannot be read, or is too noisy to prove anything.
        """
        stored = read_reference(artifact)
        outputs = artifact.manifest.outputs
        return cls(artifact, stored, {output.name: threshold_db(output, stored) for output in outputs})

    def require(self, variant: Variant, threads: int) -> None:
        """Raises:
        EngineError: the variant's answers are not those of float32.
        """
        answers = answers_of(variant, self._probe(), threads).outputs
        for output in self.artifact.manifest.outputs:
            found = compare_output(output, self.stored.keras_float64[output.name], answers, self.limits_db[output.name])
            if not found.passed:
                raise EngineError(
                    f"{variant.target} gives wrong answers in float32 on the reference inputs: {output.name}: "
                    f"{found.reason}; see: mbexport validate"
                )

    def _probe(self) -> Probe:
        contract = self.artifact.manifest.input
        inputs = self.stored.inputs
        first = next(iter(inputs.values()))
        return Probe(
            count=len(first),
            batch=contract.shape[0] or 1,
            size=contract.size_of(first),
            feeds=lambda rows: {name: array[rows] for name, array in inputs.items()},
        )


def require_same_classes(output: OutputContract, exact: NDArray[Any], answers: NDArray[Any]) -> None:
    """Both are float32's answers to the same pictures, (pictures, classes).

    Raises:
        EngineError: a picture's class is another, and not because two are as likely.
    """
    shares = exact.astype(np.float64)
    if output.kind == "logits":
        shares = np.exp(shares - shares.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
    taken = np.take_along_axis(shares, answers.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    wrong = int((shares.max(axis=-1) - taken > _SAME_SHARE).sum())
    if wrong:
        raise EngineError(
            f"wrong answers in float32: another class than the first runtime's on {wrong} of {len(exact)} pictures; "
            "see: mbexport validate --images DIR"
        )
