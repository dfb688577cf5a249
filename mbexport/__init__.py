"""Build any Keras MobileNet, export it to a clean ONNX graph, prove it correct on each runtime, and measure it.

Importing this package imports nothing heavy; each name below is loaded when it is first used. The verbs live in
``mbexport.pipeline.build``, ``mbexport.validate.validate`` and ``mbexport.bench.bench``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbexport.artifact import Artifact, read_artifact
    from mbexport.errors import MbexportError
    from mbexport.runtimes import resolve_targets
    from mbexport.spec import ExportOptions, ModelSpec

_HOMES = {
    "Artifact": "mbexport.artifact",
    "ExportOptions": "mbexport.spec",
    "MbexportError": "mbexport.errors",
    "ModelSpec": "mbexport.spec",
    "read_artifact": "mbexport.artifact",
    "resolve_targets": "mbexport.runtimes",
}

__all__ = [
    "Artifact",
    "ExportOptions",
    "MbexportError",
    "ModelSpec",
    "read_artifact",
    "resolve_targets",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
