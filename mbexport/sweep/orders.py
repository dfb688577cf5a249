"""What a worker is asked and what it answers."""

from __future__ import annotations

import msgspec

from mbexport.accuracy.report import ValidationReport
from mbexport.sweep.cells import Cell

WORKER_ENVIRONMENT = {"TF_NUM_INTRAOP_THREADS": "1"}
"""Keras's answers differ in their last bits with the threads that they are computed on, and so would the artifacts of
one cell, built by one worker or by several."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Build and check one cell."""

    cell: Cell
    out: str
    """Folder in which the artifact's folder is made."""
    cache: str
    images: str | None
    """Pictures that calibrate; for cells narrower than float32."""
    labels: str | None
    golden: str | None
    targets: list[str]
    threads: int
    """That the worker may use."""
    scratch: str | None = None
    """A folder in the cache for what is half made, which goes with whoever gave the order."""
    cpus: list[int] = []
    """That it is bound to; none where the system does not bind processes. Engines ask how many CPUs there are and spin
    on as many threads: two workers that each think to have the machine for themselves build three times as slowly."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What came of it."""

    artifact: str
    sha256: str
    was_built: bool
    """False where it came from the cache."""
    was_validated: bool
    """False where the report came from the cache."""
    validation: ValidationReport
    machine: str
    """Slug of the machine that validated it, and the versions of its engines."""
    versions: dict[str, str]
    notes: list[str]
    build_s: float
    validate_s: float
