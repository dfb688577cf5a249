"""What is written into the work folder: the prepared files, the plan of a run, and the samples of each round."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from mbexport.profile import Hardware

Answers = Literal["probabilities", "logits"]


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One prepared model. Paths are relative to the work folder."""

    path: str
    sha256: str
    input_name: str
    answers: Answers
    """What the model's one output holds."""
    feeds: str
    """An .npz with ``input`` (pictures in the model's own layout and range) and ``logits`` (centred, float64)."""
    nodes: int | None
    """Operations, constants not counted; None where the format does not tell."""
    transposes: int | None


class StepFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What one preparing step made: engine -> model; and by which versions of which packages."""

    files: dict[str, ModelFile]
    versions: dict[str, str]


class CellPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One network's candidates: key -> model, and key -> why there is none."""

    files: dict[str, ModelFile]
    missing: dict[str, str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    cells: dict[str, CellPlan]
    threads: list[int]
    replicates: int
    min_time_s: float
    hardware: Hardware
    versions: dict[str, str]

    def setup(self, slug: str) -> str:
        """A digest of all that a round's samples depend on; rounds of another setup are measured again."""
        parts = (self.cells[slug].files, self.min_time_s, self.hardware, self.versions)
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a measuring process is told. Paths are absolute."""

    engine: str
    model: str
    feeds: str
    input_name: str
    answers: Answers
    threads: int
    min_time_s: float


class Timed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One process's samples in nanoseconds, and how far its answers stand from Keras's. Shares are fractions of 1."""

    samples_ns: list[int]
    warmup_runs: int
    warmup_settled: bool
    sqnr_db: float
    steal_share: float | None
    others_share: float | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why a candidate was not timed: it died, or (``wrong``) it does not answer as the network does."""

    reason: str
    wrong: bool


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of all candidates of a network: candidate key -> outcome."""

    setup: str
    cell: str
    threads: int
    replicate: int
    measured_on: str
    runs: dict[str, Timed | Refused]
