"""What ``mbexport tune`` found to be the fastest configurations, as they are kept in the profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.analysis.report import text
from mbexport.analysis.report.parts import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.profile import LatencyProfile
    from mbexport.tuned import AccuracyCheck, Configuration, Ratio, TunedConfiguration

_FIGURES = ("threads", "times as fast", "95% interval", "over the defaults")


def tuned_table(profiles: Sequence[LatencyProfile]) -> Table | None:
    """One row for each network and objective; None where nothing was tuned."""
    rows = [(profile.artifact, *_cells(found)) for profile in profiles for found in profile.tuned]
    if not rows:
        return None
    return Table(
        "The fastest configuration of each network that stays within its accuracy limit",
        ("network", "for", "file", "runtime", "precision", *_FIGURES, "options", "accuracy", "tuned on", "engine"),
        rows,
        frozenset(_FIGURES),
    )


def _cells(found: TunedConfiguration) -> tuple[str, ...]:
    wanted = found.configuration
    return (
        f"{found.objective} within {found.max_drop * 100:g} points",
        f"{wanted.artifact}/{wanted.model}",
        f"{wanted.runtime} {wanted.mode}",
        found.precision,
        _threads(wanted),
        f"{found.over_float32.value:.2f}",
        _ends(found.over_float32),
        text.MISSING if found.over_defaults is None else f"{found.over_defaults.value:.2f}",
        ", ".join(f"{name}={value}" for name, value in wanted.options.items()) or "none",
        _accuracy(found.accuracy),
        found.tuned_on,
        ", ".join(f"{name} {version}" for name, version in found.versions.items()),
    )


def _threads(wanted: Configuration) -> str:
    return str(wanted.threads) if wanted.callers == 1 else f"{wanted.threads} for {wanted.callers} callers"


def _ends(ratio: Ratio) -> str:
    return f"{ratio.ci[0]:.2f} to {ratio.ci[1]:.2f}"


def _accuracy(check: AccuracyCheck) -> str:
    """What the precision costs, by what judged it."""
    if check.rule == "float32":
        return "float32"
    if check.rule == "sqnr":
        return "equal" if check.sqnr_db is None else f"SQNR {check.sqnr_db:.1f} dB"
    of = text.count(check.pictures, "picture")
    if check.rule == "top-1" and check.top1_drop is not None and check.top1_drop_ci is not None:
        low, high = (end * 100 for end in check.top1_drop_ci)
        return f"top-1 drop {check.top1_drop * 100:.2f} [{low:.1f}, {high:.1f}] points on {of}"
    assert check.expected_drop is not None
    return f"expected drop {check.expected_drop * 100:.2f} points on {of}"
