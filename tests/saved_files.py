"""Files of answers, made by hand: what came from each machine is known to the last digit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.accuracy.report import Precision
from mbexport.accuracy.saved import SavedDocument, SavedLimit, SavedOutputs, SavedProbe, SavedRow, write_saved
from mbexport.manifest import OutputContract
from mbexport.profile import Hardware

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.manifest import OutputKind

    Array = NDArray[np.floating[Any]]

PROBE, OUTPUT = "reference pictures", "answers"
TRUTH = np.array([[4.0, 1.0, -5.0], [-2.0, 3.0, -1.0]])
"""Two pictures, three classes, each row's mean 0: centring changes nothing."""


def row(limit_db: float = 40.0, **changes: Any) -> SavedRow:
    limits = {PROBE: {OUTPUT: SavedLimit(least_db=limit_db, origin=f"made up for {limit_db:g} dB")}}
    known: dict[str, Any] = {
        "runtime": "ort:cpu",
        "mode": "parity",
        "batch": 2,
        "precision": Precision(requested="f32", effective="f32"),
        "placement": {"cpu": 5},
        "engine_options": {},
        "versions": {"onnxruntime": "1.31.1"},
        "limits": limits,
        "passed": True,
        "reason": None,
    }
    return SavedRow(**(known | changes))


def saved(
    *answers: Array | None, rows: list[SavedRow] | None = None, truth: Array = TRUTH, **changes: Any
) -> SavedOutputs:
    """The answers of one runtime after another, None where there is none."""
    kind: OutputKind = changes.pop("kind", "logits")
    known: dict[str, Any] = {
        "artifact": "tiny",
        "artifact_sha256": "a" * 64,
        "hardware": Hardware(
            architecture="aarch64", cpu="Cortex-A76", physical_cores=4, logical_cores=4, memory_bytes=2**33
        ),
        "versions": {"mbexport": "0.1.0"},
        "outputs": [OutputContract(name=OUTPUT, shape=[None, truth.shape[-1]], kind=kind)],
        "probes": [
            SavedProbe(
                name=PROBE,
                pictures=[f"picture {number}" for number in range(1, len(truth) + 1)],
                inputs_sha256="b" * 64,
            )
        ],
        "rows": rows or [row() for _ in answers],
    }
    document = SavedDocument(**(known | changes))
    kept = [{} if answer is None else {PROBE: {OUTPUT: answer}} for answer in answers]
    return SavedOutputs(document, {PROBE: {OUTPUT: truth}}, kept)


def write(path: Path, *answers: Array | None, **changes: Any) -> Path:
    write_saved(path, saved(*answers, **changes))
    return path
