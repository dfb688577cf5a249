"""What ``profile merge`` did, in counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mbexport.profiles import tuned_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mbexport.profile import LatencyProfile


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows, and of what ``tune`` found; of either the first three are all that stand there now."""

    rows_added: int
    """There was none with their key."""
    rows_replaced: int
    """In the place of one measured earlier, or on the same day."""
    rows_kept: int
    """As they stood there before."""
    rows_not_taken: int
    """Of the sources: one measured later, or of a later source and the same day, stands in their place."""
    tuned_added: int
    """There was none of their objective and accuracy limit."""
    tuned_replaced: int
    tuned_kept: int
    tuned_not_taken: int


class MergedProfile(Counts, frozen=True, kw_only=True):
    """One profile that the sources had something for."""

    path: str
    hardware: str
    """The machine's slug."""
    artifact: str
    written: bool
    """False where the file held exactly this before."""


class MergeReport(Counts, frozen=True, kw_only=True):
    """What ``profile merge`` did; the names are the keys of the JSON report. The counts are the profiles' sums."""

    into: str
    written: list[str]
    """Paths of the profiles whose file is new or another now."""
    tables: list[str]
    """Paths of the machines' README.md, all written anew."""
    profiles: list[MergedProfile]


def merged_profile(
    path: Path,
    before: LatencyProfile | None,
    after: LatencyProfile,
    offered: Sequence[LatencyProfile],
    *,
    written: bool,
) -> MergedProfile:
    """Hold what stands at ``path`` to what stood there and to what the sources had for it."""
    held = [] if before is None else [before]
    return MergedProfile(
        path=str(path),
        hardware=after.hardware.slug,
        artifact=after.artifact,
        written=written,
        **_counts("rows", *(_rows(profiles) for profiles in (held, [after], offered))),
        **_counts("tuned", *(_tuned(profiles) for profiles in (held, [after], offered))),
    )


def _rows(profiles: Iterable[LatencyProfile]) -> list[tuple[object, object]]:
    return [(row.key, row) for profile in profiles for row in profile.measurements]


def _tuned(profiles: Iterable[LatencyProfile]) -> list[tuple[object, object]]:
    return [(tuned_key(tuned), tuned) for profile in profiles for tuned in profile.tuned]


def _counts(
    what: str,
    before: Iterable[tuple[object, object]],
    after: Iterable[tuple[object, object]],
    offered: Iterable[tuple[object, object]],
) -> dict[str, Any]:
    """Of things with their keys."""
    old, new = dict(before), dict(after)
    return {
        f"{what}_added": len(new.keys() - old.keys()),
        f"{what}_replaced": sum(each != new[key] for key, each in old.items()),
        f"{what}_kept": sum(each == new[key] for key, each in old.items()),
        f"{what}_not_taken": sum(each != new[key] for key, each in offered),
    }
