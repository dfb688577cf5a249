"""ONNX Runtime as everything here calls it: imported without its telemetry, its errors translated, run as it stands."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

from mbexport.errors import ArtifactError, EngineError, MissingPackageError
from mbexport.hardware import usable_threads
from mbexport.runtimes import raise_interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    import onnx
    from numpy.typing import NDArray

INSTALL = "pip install onnxruntime-gpu"
SILENT = 4  # above "error": every error also comes as an exception, and its log line would reach the user's terminal


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime with its telemetry off.

    Official builds since 1.29 otherwise write a device id to the home folder on import and upload events about every
    session from a thread of their own, which a latency measurement must not share the CPU with either.

    Raises:
        MissingPackageError: onnxruntime is not installed, or is broken.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"onnxruntime is not installed; {INSTALL}") from error
    except ImportError as error:
        raise_interrupt(error)
        raise MissingPackageError(f"onnxruntime is broken ({error}); {INSTALL} --force-reinstall") from error
    if not hasattr(onnxruntime, "InferenceSession"):  # what removing one of two onnxruntime packages leaves behind
        raise MissingPackageError(f"onnxruntime is broken (it holds no code); {INSTALL} --force-reinstall")
    module: ModuleType = onnxruntime
    return module


def silent_options(ort: ModuleType) -> Any:
    """Session options without log lines, and with the threads that this process may use.

    ONNX Runtime would take the machine's cores, whatever the process is confined to, and pin its threads to them.
    """
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = usable_threads().threads
    return options


def run_unoptimized(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Outputs by name on the CPU, ONNX Runtime's graph optimizer off so that this graph and no other is run.

    Raises:
        ArtifactError, EngineError: ONNX Runtime cannot load or run the model.
    """
    ort = import_onnxruntime()
    options = silent_options(ort)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with engine_errors("ONNX Runtime refuses the graph"):
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn ONNX Runtime's exceptions, which share no base class, into this project's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    broken = (state.InvalidProtobuf, state.InvalidArgument, state.NoSuchFile)
    others = (state.Fail, state.EPFail, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    try:
        yield
    except broken as error:
        if "Load model from" in str(error):
            raise ArtifactError(f"{what}: {_first_line(error)} Build the artifact again") from error
        raise EngineError(f"{what}: {_first_line(error)}") from error
    except (*others, RuntimeError, ValueError) as error:
        raise EngineError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return text.partition("\n")[0]
