"""What a variant answers to many inputs, every core at work."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import EngineError
from mbexport.runtimes import SessionOptions, load_engine, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from mbexport.runtimes import Session, SessionFacts
    from mbexport.tune.variants import Variant

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Probe:
    """Inputs to be answered."""

    count: int
    """Pictures."""
    batch: int
    """Pictures per call."""
    size: tuple[int, int] | None
    """Height and width in pixels; None where the network has no pictures."""
    feeds: Callable[[NDArray[np.intp]], Arrays]
    """The network's inputs for the pictures of these numbers."""


@dataclass(frozen=True)
class Answers:
    """Outputs by name, (pictures, ...), and what the engine says that it did."""

    outputs: dict[str, NDArray[Any]]
    facts: SessionFacts
    seconds: float
    """From when all sessions were open to the last answer."""


def answers_of(variant: Variant, probe: Probe, threads: int) -> Answers:
    """Run all pictures, on a CPU in as many sessions of one thread each as there are threads.

    Raises:
        ArtifactError: the file is not a model.
        EngineError: the engine cannot run it, or answers with numbers that are not finite.
        MissingError: the engine or device is not here.
    """
    engine, device = split_target(variant.target)
    workers = threads if device == "cpu" else 1
    options = SessionOptions(
        mode=variant.mode,
        threads=1 if device == "cpu" else None,
        batch=probe.batch,
        size=probe.size,
        concurrent=workers > 1,
    )
    runtime = load_engine(engine)
    with ExitStack() as stack:
        sessions = [stack.enter_context(runtime.open(variant.path, device, options)) for _ in range(workers)]
        start = time.perf_counter()
        parts = _shared_out(sessions, probe)
        seconds = time.perf_counter() - start
        facts = sessions[0].facts()
    outputs = {name: np.concatenate([part[name] for part in parts])[: probe.count] for name in parts[0]}
    if not all(np.isfinite(array).all() for array in outputs.values()):
        raise EngineError(
            f"{variant.target} answers with numbers that are not finite ({variant.path}); "
            "check the artifact with: mbexport validate"
        )
    return Answers(outputs, facts, seconds)


def _shared_out(sessions: list[Session], probe: Probe) -> list[dict[str, NDArray[Any]]]:
    """All batches' answers in their order; the last picture fills up the last batch."""
    starts = range(0, probe.count, probe.batch)
    found: list[dict[str, NDArray[Any]]] = [{} for _ in starts]
    stopped = threading.Event()

    def work(worker: int) -> None:
        for at in range(worker, len(starts), len(sessions)):
            if stopped.is_set():
                return
            rows = np.minimum(np.arange(starts[at], starts[at] + probe.batch), probe.count - 1)
            found[at] = sessions[worker].run(probe.feeds(rows))

    with ThreadPoolExecutor(len(sessions)) as pool:
        try:
            for _ in pool.map(work, range(len(sessions))):
                pass
        except BaseException:
            stopped.set()
            raise
    return found
