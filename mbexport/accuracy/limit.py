"""A limit and its origin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """The least SQNR of one output in dB, and its origin in words."""

    least_db: float
    origin: str
