"""Runtimes whose sessions are faulty, in the place of the right ones."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from fault_bench.library import SESSIONS
from mbexport.runtimes import ENGINES
from mbexport.runtimes.openvino import OpenVinoRuntime
from mbexport.runtimes.ort import OrtRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.runtimes import Session, SessionOptions

(FAULT,) = SESSIONS
OUTPUTS = {"predictions"}
"""Of the networks that are tried. When one is cut open, its inner tensors come out whole."""


class FaultyOrt(OrtRuntime):
    """ONNX Runtime with the fault round every session."""

    def open(self, model: Path, device: str, options: SessionOptions) -> Session:  # type: ignore[override]
        return FAULT.wrap(super().open(model, device, options), np.random.default_rng(0), OUTPUTS)


class FaultyOpenVino(OpenVinoRuntime):
    """OpenVINO likewise."""

    def open(self, model: Path, device: str, options: SessionOptions) -> Session:  # type: ignore[override]
        return FAULT.wrap(super().open(model, device, options), np.random.default_rng(0), OUTPUTS)


@contextlib.contextmanager
def faulty_engines() -> Iterator[None]:
    """Both engines faulty as long as it is open."""
    right = dict(ENGINES)
    ENGINES.update(ort=f"{__name__}:FaultyOrt", openvino=f"{__name__}:FaultyOpenVino")
    try:
        yield
    finally:
        ENGINES.update(right)
