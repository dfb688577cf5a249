"""What the cache holds."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType

from mbexport_cli.render.parts import new_table

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.cache import Kept

_MEGA = 1e6
_UNITS_S = ((86_400, "d"), (3_600, "h"), (60, "min"))


def cached(root: "Path", entries: "Sequence[Kept]") -> Iterator[RenderableType]:
    if entries:
        yield _table(entries)
        yield ""
    total = sum(kept.size_bytes for kept in entries)
    yield f"{len(entries)} entries, {total / _MEGA:.1f} MB"
    yield f"cache: {root}"


def pruned(root: "Path", removed: "Sequence[Kept]") -> Iterator[RenderableType]:
    total = sum(kept.size_bytes for kept in removed)
    yield f"{len(removed)} entries removed, {total / _MEGA:.1f} MB"
    yield f"cache: {root}"


def _table(entries: "Sequence[Kept]") -> RenderableType:
    table = new_table("entry", "kind", "of", "MB", "used", right=("MB", "used"))
    for kept in entries:
        name = str(kept.inputs.get("name", ""))
        table.add_row(
            kept.digest[:12], kept.kind or "damaged", name, f"{kept.size_bytes / _MEGA:.1f}", _ago(kept.used_s)
        )
    return table


def _ago(then_s: float) -> str:
    passed_s = max(0.0, time.time() - then_s)
    return next((f"{passed_s / unit_s:.0f} {unit} ago" for unit_s, unit in _UNITS_S if passed_s >= unit_s), "just now")
