"""What an engine's own profiler tells, in one form for every engine."""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mbexport.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.runtimes import SessionOptions

    Feeds = Mapping[str, NDArray[Any]]

PROFILERS = {
    "ort": "mbexport.runtimes.ort_profile:profile",
    "openvino": "mbexport.runtimes.openvino_profile:profile",
}
"""An engine's :class:`Profiler`, as ``runtimes.ENGINES`` has its runtime."""


@dataclass(frozen=True)
class ProfiledNode:
    """One node as the engine runs it, which may be several of the file's."""

    name: str
    origins: Sequence[str]
    """The file's nodes, or their results, that the engine says went into it; none where it does not say."""
    operator: str
    """The node's type, in the engine's words."""
    kernel: str
    """What ran it: OpenVINO's implementation, ONNX Runtime's execution provider."""
    shape: Sequence[int] | None
    """Of the first output; an engine may have padded the channels to its blocks."""
    times_s: Sequence[float]
    """Of one run each, or averages of a few where the engine tells no more; none of the warm-up."""


@dataclass(frozen=True)
class EngineProfile:
    """The nodes that ran, in their order, and what each whole run took while it was watched."""

    nodes: Sequence[ProfiledNode]
    run_s: Sequence[float]
    note: str | None = None
    """What the times are not, where they are not what they seem."""


@dataclass(frozen=True)
class Watch:
    """How many runs are watched behind the warm-up; fewer where they take longer than ``most_s``."""

    runs: int
    most_s: float


class Profiler(Protocol):
    """Opens a model as the engine's runtime does, with the engine's profiler on, and runs the feeds in turn."""

    def __call__(
        self, model: Path, device: str, options: SessionOptions, feeds: Sequence[Feeds], watch: Watch
    ) -> EngineProfile: ...


def load_profiler(engine: str) -> Profiler:
    """Import an engine's profiler.

    Raises:
        InputError: the engine has none.
    """
    if engine not in PROFILERS:
        raise InputError(f"per-operator times are read from {' and '.join(PROFILERS)}, not from {engine}")
    module, _, name = PROFILERS[engine].partition(":")
    profiler: Profiler = getattr(importlib.import_module(module), name)
    return profiler


def timed(calls: Iterator[Callable[[], object]], runs: int, most_s: float = math.inf) -> list[float]:
    """Make ``runs`` of the calls, or as many as begin within ``most_s``; each one's seconds."""
    found: list[float] = []
    start = ended = time.perf_counter()
    while len(found) < runs and ended - start <= most_s:
        call = next(calls)
        began = time.perf_counter()
        call()
        ended = time.perf_counter()
        found.append(ended - began)
    return found
