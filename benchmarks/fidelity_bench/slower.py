"""Doubles of ONNX Runtime that take a known share longer: after each call they spin for that share of its time.

Run as a program, this is the measuring process that knows them, as ``slow10:cpu`` and ``slow20:cpu``.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from mbexport.bench import worker
from mbexport.runtimes import ENGINES
from mbexport.runtimes.ort import OrtRuntime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mbexport.runtimes import SessionOptions
    from mbexport.runtimes.ort import OrtSession

_NAME = "fidelity_bench.slower"
SHARES = {"slow10": 0.10, "slow20": 0.20}


class _Slower(OrtRuntime):
    share = 0.0

    def open(self, model: Path, device: str, options: SessionOptions) -> OrtSession:
        session = super().open(model, device, options)
        bind = session.bind
        session.bind = lambda feeds: _delayed(bind(feeds), self.share)  # type: ignore[method-assign]
        return session


class Slower10(_Slower):
    """A tenth slower."""

    share = SHARES["slow10"]


class Slower20(_Slower):
    """A fifth slower."""

    share = SHARES["slow20"]


def _delayed(call: Callable[[], object], share: float) -> Callable[[], Any]:
    def delayed() -> None:
        start = time.perf_counter_ns()
        call()
        end = time.perf_counter_ns()
        end += round((end - start) * share)
        while time.perf_counter_ns() < end:
            pass

    return delayed


def register() -> None:
    """Make the doubles known to this process."""
    ENGINES["slow10"] = f"{_NAME}:Slower10"
    ENGINES["slow20"] = f"{_NAME}:Slower20"


if __name__ == "__main__":
    sys.modules[_NAME] = sys.modules["__main__"]  # whence the table of engines imports it
    register()
    sys.exit(worker.main())
