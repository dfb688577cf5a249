"""What ``compare`` found, for machines. The keys are promised to scripts."""

from __future__ import annotations

import msgspec

from mbexport.accuracy.report import FlippedPicture, Precision
from mbexport.quantities import Mode


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One row's answers against others to the same inputs. The figures are those of the worst output and inputs."""

    output: str
    inputs: str
    """Where it is worst, such as ``reference pictures at 160x96``."""
    sqnr_db: float | None
    """None with ``passed`` true means bit-equal, None with ``passed`` false not finite or not comparable."""
    max_abs_error: float | None
    mean_abs_error: float | None
    top1_agreement: float | None
    """The least of any output; None where the network does not classify."""
    flips: list[FlippedPicture]
    """Of all pictures; ``expected`` and ``margin`` are those of the answers compared with."""
    threshold_db: float | None
    """None where there is none, for want of answers."""
    threshold_origin: str
    passed: bool
    reason: str | None
    """Why it failed, or why passing proves little."""


class ComparedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime in one mode, from one of the files."""

    file: str
    runtime: str
    mode: Mode
    batch: int
    """The most pictures at a time that were tried; the answers are those."""
    precision: Precision
    truth: Difference
    """Against the network in float64."""
    first: Difference | None
    """Against the first row of the first file; None for that row itself. It decides nothing where that row failed."""
    passed: bool
    """Both of them, and what ``validate`` said of the row."""
    reason: str | None


class ComparedFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a file's answers come from."""

    file: str
    artifact: str
    """The slug."""
    artifact_sha256: str
    hardware: str
    """The machine's slug, as in profiles."""
    cpu: str
    versions: dict[str, str]
    """Of Python, the packages and the engines."""


class SavedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of all files; ``passed`` means that each of them passed."""

    passed: bool
    files: list[ComparedFile]
    rows: list[ComparedRow]
    notes: list[str]
    """What the files differ in beside their answers."""
