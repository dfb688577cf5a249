"""What ``validate`` found, for machines. The keys are promised to scripts."""

from __future__ import annotations

from typing import Literal

import msgspec

from mbexport.manifest import Coverage
from mbexport.quantities import Mode


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for and what the engine says it did; None where it never got that far.

    ``production`` asks for nothing: ``requested`` is then ``default``.
    """

    requested: Literal["f32", "f16", "int8", "default"]
    effective: str | None


class FlippedPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction that differs from the reference's."""

    picture: str
    """Which one, such as ``reference picture 2`` or a file's name."""
    output: str
    expected: int
    """The reference's most probable class."""
    got: int
    margin: float
    """How far the reference puts ``expected`` above ``got``: a difference of logits."""
    inside_noise: bool
    """Whether noise that the limit allows could turn the two round; such a flip is no fault."""


class ValidationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime in one mode.

    SQNR, errors, cosine and limit are those of the worst of all outputs, sizes, batches and pictures; agreements, flips
    and the probabilities' error are the worst of any.
    """

    runtime: str
    mode: Mode
    batch: int
    """Pictures at a time, where it was worst."""
    precision: Precision
    placement: dict[str, int]
    """Device -> number of nodes."""
    sqnr_db: float | None
    """None with ``passed`` true means bit-equal, None with ``passed`` false not finite or not comparable."""
    max_abs_error: float | None
    mean_abs_error: float | None
    abs_error_quantiles: dict[str, float] | None
    """``p50``, ``p90``, ``p99``, in logits or in the features' own unit, as the two before."""
    probability_error: float | None
    """Largest absolute error of a probability; None where the network does not classify."""
    cosine: float | None
    top1_agreement: float | None
    """Share of the pictures with the same top class; None where the network does not classify."""
    top5_agreement: float | None
    """Share of the reference's five likeliest classes that are among the runtime's."""
    flips: list[FlippedPicture]
    """Of all pictures, not of the worst output alone."""
    threshold_db: float
    threshold_origin: str
    """Where the limit comes from, in words."""
    margin_db: float | None
    """``sqnr_db`` over ``threshold_db``."""
    fallback_ops: dict[str, list[str]]
    """Device -> the operators that ran there though another was asked for."""
    passed: bool
    reason: str | None
    """Why it failed, or why passing proves little."""


class NodeError(msgspec.Struct, frozen=True, kw_only=True):
    """How far one node's result stands from what it held when the artifact was built."""

    node: str
    op: str
    layer: str
    """The Keras layer that the node comes from."""
    sqnr_db: float | None
    """None where it is bit-equal (``within``) or not finite (not ``within``)."""
    within: bool
    """Whether it is within the tolerance."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a runtime's answers go wrong. ``node`` is None where no node was found to."""

    runtime: str
    mode: Mode
    node: str | None = None
    op: str | None = None
    layer: str | None = None
    input_errors: dict[str, float | None] = {}
    """SQNR of the node's inputs in dB, by tensor; None as in :class:`NodeError`."""
    sqnr_db: float | None = None
    """Of its output."""
    tolerance_db: float | None = None
    """What that must reach."""
    causes: list[str] = []
    """The likeliest first."""
    suspects: list[str] = []
    """Nodes, one of which is wrong although the engine computes each rightly when looked at: its fusion of them is."""
    nodes: list[NodeError] = []
    """Every node, in the graph's order, from one run with all tensors exposed; none where the engine cannot run it."""
    sessions: int
    """How many times the graph was loaded to find out."""


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """All rows; ``passed`` means that there is one and that each of them passed."""

    passed: bool
    rows: list[ValidationRow]
    sizes: list[tuple[int, int]]
    """Height and width in pixels of the pictures that each runtime was tried on; several where they are dynamic."""
    batches: list[int]
    """Pictures at a time, each tried in both modes."""
    coverage: Coverage | None = None
    """Which knees of the activations the reference pictures cross, as the build found; a fault beyond one they miss
    does not show on them."""
    golden: int = 0
    """How many golden pictures it was tried on besides."""
    images: int = 0
    """How many pictures of the user's it was tried on besides."""
    explanations: list[Explanation] = []
    """Of the rows that failed, or of each where none did; where that was asked for."""
