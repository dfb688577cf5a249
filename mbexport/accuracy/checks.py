"""What is asked of a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mbexport.quantities import Mode

MODES: tuple[Mode, ...] = ("parity", "production")


@dataclass(frozen=True)
class Checks:
    """What is asked of each runtime, beyond the artifact's own limits."""

    modes: Sequence[Mode] = MODES
    batches: Sequence[int] = ()
    """Pictures at a time; empty tries 1 and all reference pictures at once, where the batch is dynamic."""
    images: Sequence[Path] = ()
    """Pictures of the user's."""
    min_sqnr_db: float | None = None
    """Instead of every derived limit."""
    max_flips: int | None = None
    """Most predictions that may differ from the reference's in a row; None sets no limit of its own."""
    allow_fallback: bool = False
    """Whether nodes may run on another device than the one asked for."""
