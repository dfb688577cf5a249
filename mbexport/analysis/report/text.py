"""Figures as people read them: milliseconds, megabytes, percent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.analysis.report.data import Row

MISSING = "-"
"""Where there is no figure."""
NOISY = "~"
"""Before the figure of a noisy row."""


def milliseconds(seconds: float | None, missing: str = MISSING) -> str:
    """Four significant digits, three decimals at most."""
    if seconds is None:
        return missing
    value = seconds * 1e3
    decimals = 3 if value < 10 else 2 if value < 100 else 1
    return f"{value:.{decimals}f}"


def short_milliseconds(seconds: float) -> str:
    """Three significant digits or so, for labels in plots."""
    value = seconds * 1e3
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def interval(bounds_s: tuple[float, float]) -> str:
    return f"{milliseconds(bounds_s[0])} to {milliseconds(bounds_s[1])}"


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f}"


def percent(share: float) -> str:
    return f"{share * 100:.1f}"


def marked(row: Row, figure: str) -> str:
    return f"{NOISY}{figure}" if row.noisy else figure


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def part(caption: str, number: int, of: int) -> str:
    """The caption of one of several drawings that belong together, counted from 1."""
    return caption if of == 1 else f"{caption} ({number} of {of})"
