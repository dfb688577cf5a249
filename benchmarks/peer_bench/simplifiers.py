"""Keras's ONNX file after the general simplifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.runtimes.ort_calls import import_onnxruntime
from peer_bench.keras_files import MODEL

if TYPE_CHECKING:
    from pathlib import Path


def slim(source: Path, folder: Path) -> Path:
    import_onnxruntime()  # first, so that a simplifier's import of it finds its telemetry off
    import onnx
    import onnxslim

    path = folder / MODEL
    onnx.save(onnxslim.slim(onnx.load(source)), path)
    return path


def simplify(source: Path, folder: Path) -> Path:
    """Raises ValueError where onnxsim's own check finds that the simplified model answers otherwise."""
    import_onnxruntime()
    import onnx
    import onnxsim

    path = folder / MODEL
    simplified, equal = onnxsim.simplify(onnx.load(source))
    if not equal:
        raise ValueError("onnxsim's own check says that the simplified model answers otherwise")
    onnx.save(simplified, path)
    return path
