"""Where an inference spends its time, operator by operator, as the engine's own profiler tells it.

A profiler slows what it watches, so the plain run's median stands beside the sum of the operators' times, and nothing
is rescaled. What each operator achieves is held against what the same engine reaches at best
(:mod:`mbexport.operators.rates`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

import msgspec

from mbexport import child, hardware
from mbexport.bench.plan import Cell
from mbexport.bench.settings import Settings, cells_of
from mbexport.errors import EngineError, ProcessError
from mbexport.quantities import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.artifact import Artifact

COMMAND = child.python_module("mbexport.operators.worker")


class MachineRates(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine reaches at best with the same threads: the best of several runs."""

    macs_per_s: float | None
    """Of 1x1 convolutions, 256 to 256 channels on 28x28 maps. None where the engine computes them in another precision
    than the network."""
    bytes_per_s: float | None
    """Of a Relu over an array that no cache holds, what is read and what is written counted once each. None where there
    is no memory for it."""
    stream_bytes: int
    """The size of that array."""


class Achieved(msgspec.Struct, frozen=True, kw_only=True):
    """A time, the work done in it, and how near that comes to what the machine can do.

    Work is None where it cannot be told from the file's graph: for what the engine added of its own, such as a change
    of layout. Shares are fractions of 1.
    """

    time_s: float
    """Per inference: a node's median over the watched runs, a type's sum over its nodes."""
    share: float
    """Of the sum of all operators' times."""
    macs: int | None
    moved_bytes: int | None
    """Inputs, weights and outputs, each once, in the effective precision."""
    macs_per_s: float | None
    bytes_per_s: float | None
    arithmetic_share: float | None
    """Of the machine's multiply-accumulates per second."""
    memory_share: float | None
    """Of the machine's bytes per second; above 1 where the data were still in a cache."""
    bound: Literal["arithmetic", "memory"] | None
    """The nearer of the two."""


class OperatorRow(Achieved, frozen=True, kw_only=True):
    """All nodes of one type of the engine's. ``form`` tells convolutions apart: ``1x1``, ``depthwise``."""

    operator: str
    form: str | None
    nodes: int
    kernels: dict[str, int]
    """What ran them (OpenVINO's implementation, ONNX Runtime's execution provider) -> number of nodes."""


class NodeRow(Achieved, frozen=True, kw_only=True):
    """One node of the engine's, and the file's nodes that went into it."""

    name: str
    made_of: list[str]
    operator: str
    kernel: str
    shape: list[int] | None
    """Of its first output, as the engine tells it: it may have padded the channels to its blocks."""


class OperatorTable(msgspec.Struct, frozen=True, kw_only=True):
    """The operators of one artifact on one target; the names are the keys of the JSON report."""

    artifact: str
    runtime: str
    mode: Mode
    precision: str
    threads: int
    batch: int
    input_size: tuple[int, int] | None
    """Height and width in pixels of what was fed to a network of dynamic size."""
    runs: int
    """Watched runs."""
    plain_p50_s: float
    """Median of an inference in the same process before, without the profiler."""
    watched_p50_s: float
    """Median of an inference with the profiler."""
    operators_s: float
    """The sum of the rows' times."""
    coverage: float
    """``operators_s`` over ``plain_p50_s``: more by what the profiler costs, less by what lies between operators."""
    macs: int | None
    """Of the whole graph; None where those of one node cannot be known."""
    attributed_macs: int
    """Of the nodes that the rows stand for."""
    rates: MachineRates | None
    """What the machine reaches at best; None where the profiler does not tell operators' own times."""
    note: str | None
    """What the times are not, where they are not what they seem."""
    rows: list[OperatorRow]
    """The slowest first."""
    slowest: list[NodeRow]
    """The ten slowest nodes."""


class OperatorsAnswer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the measuring process answers."""

    table: OperatorTable


def watched(
    artifacts: Sequence[Artifact],
    targets: Sequence[str],
    settings: Settings,
    progress: Callable[[str, float], None] | None = None,
) -> list[OperatorTable]:
    """A table for each cell that a bench of the same has, without those that its engine cannot run.

    Raises as :func:`operators_of` and :func:`mbexport.bench.settings.cells_of` do.
    """
    by_folder = {str(artifact.path.absolute()): artifact for artifact in artifacts}
    cells = cells_of(artifacts, targets, settings, hardware.usable_threads())
    tables = []
    for number, cell in enumerate(cells):
        if progress is not None:
            progress(f"watch operators {cell.target} {cell.mode}", number / len(cells))
        with contextlib.suppress(EngineError, ProcessError):  # the bench has told it
            artifact = by_folder[cell.artifact]
            tables.append(operators_of(artifact, cell.target, cell.mode, cell.threads, cell.batch))
    return tables


def operators_of(
    artifact: Artifact, target: str, mode: Mode, threads: int, batch: int, command: Sequence[str] = COMMAND
) -> OperatorTable:
    """Watch an artifact's operators in a fresh process, which does not outlive this call.

    Raises:
        InputError: the engine has no profiler that is read here, or the batch does not fit into memory.
        MbexportError: the same error that the process met.
        ProcessError: the process died.
    """
    path = str(artifact.path.absolute())
    cell = Cell(artifact=path, sha256=artifact.sha256, target=target, mode=mode, threads=threads, batch=batch)
    what = f"the process that watched the operators of {target} ({mode})"
    return child.ask(command, cell, OperatorsAnswer, what=what).table
