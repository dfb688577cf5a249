"""The page as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.analysis.report.data import gather
from mbexport.analysis.report.page import html_page, plotly_source
from mbexport.errors import OutputError
from mbexport.serde import refuse_unwritable, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.analysis.machine import Machine


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A report that was written; the names are the keys of the JSON report."""

    report: str
    """The page's path."""
    hardware: str
    """The machine's slug."""
    origin: str
    """Whether the profiles were measured here or travelled with mbexport."""
    networks: int
    rows: int


def write_report(path: Path, machine: Machine, shipped: Path) -> Written:
    """Write the page whole or not at all; folders above it are made.

    Args:
        path: the page.
        machine: the rows to show, one at least.
        shipped: where the profiles lie that travel with mbexport.

    Raises:
        MissingPackageError: Plotly is not installed.
        OutputError: the place is a folder, or cannot be written to.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file, such as {path / 'report.html'}")
    refuse_unwritable(path.parent)
    library = plotly_source()
    data = gather(machine, shipped)
    write_atomic(path, html_page(data, library).encode())
    return Written(
        report=str(path),
        hardware=data.hardware.slug,
        origin=data.origin,
        networks=len({row.network for row in data.rows}),
        rows=len(data.rows),
    )
