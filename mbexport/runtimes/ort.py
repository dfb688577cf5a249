"""ONNX Runtime: targets ``ort:cpu`` and ``ort:cuda``.

onnxruntime-gpu names CUDA among its providers on every machine and falls back to the CPU with a warning where the
libraries are missing. So CUDA counts as here only when a session was really opened on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mbexport.errors import EngineError, InputError, MissingDeviceError, MissingPackageError
from mbexport.runtimes import DeviceStatus, SessionFacts, SessionOptions
from mbexport.runtimes.ort_calls import SILENT, engine_errors, import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType, TracebackType

    from numpy.typing import NDArray

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DEVICES = {provider: device for device, provider in _PROVIDERS.items()}
_WARNING = 2  # ONNX Runtime's default
_INT8_OPS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear", "DequantizeLinear"}
_OPTIMIZED = "optimized.onnx"
_SWITCHES = {"enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse"}
_CUDA_REMEDY = "Install an NVIDIA driver, then: pip install 'mbexport[cuda]'"


class OrtRuntime:
    """Engine ``ort``."""

    package = "onnxruntime"

    def import_package(self) -> ModuleType:
        return import_onnxruntime()

    def devices(self) -> list[DeviceStatus]:
        try:
            ort = import_onnxruntime()
        except MissingPackageError as error:
            detail, _, remedy = str(error).partition("; ")
            return [
                DeviceStatus(f"ort:{device}", available=False, detail=detail, remedy=remedy) for device in _PROVIDERS
            ]
        version = f"onnxruntime {ort.__version__}"
        return [DeviceStatus("ort:cpu", available=True, detail=version), _probe_cuda(ort, version)]

    def open(self, model: Path, device: str, options: SessionOptions) -> OrtSession:
        """Load ``model`` on ``cpu`` or ``cuda``.

        Raises:
            ArtifactError: the file is not an ONNX model.
            EngineError: ONNX Runtime cannot run the model.
            InputError: no such device.
            MissingDeviceError: ONNX Runtime dropped the CUDA provider.
            MissingPackageError: onnxruntime is not installed.
        """
        ort = import_onnxruntime()
        if device not in _PROVIDERS:
            raise InputError(
                f"unknown runtime 'ort:{device}'; known: {', '.join(f'ort:{name}' for name in _PROVIDERS)}"
            )
        session, settings = _open_session(ort, str(model), device, options)
        return OrtSession(ort, session, model, device, settings, _callers(options))


class OrtSession:
    """A model loaded by ONNX Runtime. ``run`` raises :class:`EngineError`; a bound call raises the engine's own."""

    def __init__(
        self, ort: ModuleType, session: Any, model: Path, device: str, settings: Mapping[str, str], callers: int
    ) -> None:
        self._ort = ort
        self._session = session
        self._model = model
        self._device = device
        self._settings = settings
        self._callers = callers
        self._outputs = [output.name for output in session.get_outputs()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._session = None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with engine_errors(f"ort:{self._device} failed while running {self._model.name}"):
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        """Inputs bound once; on CUDA each call copies them in and the outputs out, and waits for both."""
        session, binding = self._session, self._session.io_binding()
        values = {name: self._ort.OrtValue.ortvalue_from_numpy(array, self._device, 0) for name, array in feeds.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")

        def call_on_cuda() -> None:
            for name, value in values.items():
                value.update_inplace(feeds[name])
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call_on_cuda if self._device == "cuda" else functools.partial(_run_bound, session, binding, feeds)

    def bind_inner(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object] | None:
        """On CUDA: pictures copied in once, answers left there, each call waited for."""
        if self._device != "cuda":
            return None
        session, binding = self._session, self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, self._ort.OrtValue.ortvalue_from_numpy(array, self._device, 0))
        for name in self._outputs:
            binding.bind_output(name, self._device)

        def call() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call

    @property
    def callers(self) -> int:
        return self._callers

    def facts(self) -> SessionFacts:
        types: dict[str, list[str]] = {}
        for subgraph in self._session.get_provider_graph_assignment_info():
            device = _DEVICES.get(subgraph.ep_name, subgraph.ep_name)
            types.setdefault(device, []).extend(node.op_type for node in subgraph.get_nodes())
        return SessionFacts(
            precision=self._precision(),
            placement={device: len(found) for device, found in types.items()},
            operators={device: sorted(set(found)) for device, found in types.items()},
            options=self._settings,
            versions={"onnxruntime": self._ort.__version__},
        )

    def _precision(self) -> str:
        precision = _tensor_precision(self._model)
        cuda = self._session.get_provider_options().get(_PROVIDERS["cuda"], {})
        return "tf32" if precision == "f32" and cuda.get("use_tf32") == "1" else precision


def _run_bound(session: Any, binding: Any, _held: Mapping[str, NDArray[Any]]) -> None:
    """Run on the CPU. A bound value reads its array in place, so the bound call holds the arrays."""
    session.run_with_iobinding(binding)


def _open_session(
    ort: ModuleType, model: str | bytes, device: str, options: SessionOptions
) -> tuple[Any, dict[str, str]]:
    """The session and the exact options, for the record."""
    provider = _PROVIDERS[device]
    provider_options = {"use_tf32": "0"} if device == "cuda" and options.mode == "parity" else {}
    name = Path(model).name if isinstance(model, str) else "a probe model"
    if device == "cuda":
        _preload_libraries(ort)
    with _quiet(ort), engine_errors(f"ort:{device} cannot load {name}"):
        # Without enable_fallback=0 it prints to stdout and goes on with the CPU.
        session = ort.InferenceSession(
            _kept(options) or model,
            _session_options(ort, options),
            providers=[(provider, provider_options)],
            enable_fallback=0,
        )
    if provider not in session.get_providers():
        raise MissingDeviceError(
            f"ort:{device} was asked for and onnxruntime fell back to the CPU: {_why_dropped(ort)}"
        )
    settings = {
        "intra_op_num_threads": str(_threads_each(options) or "default"),
        "inter_op_num_threads": "1",
        "session.intra_op.allow_spinning": "1",
        **options.engine_options,
        **{f"{provider}.{key}": value for key, value in provider_options.items()},
    }
    return session, settings


def _kept(options: SessionOptions) -> str | None:
    """The graph as an earlier session optimised it for this machine, which no session needs to optimise again."""
    kept = options.kept and options.kept / _OPTIMIZED
    return str(kept) if kept and kept.is_file() else None


def _callers(options: SessionOptions) -> int:
    """For the most throughput, one caller a thread: ONNX Runtime has no arrangement of its own."""
    return options.callers or options.threads or 1


def _threads_each(options: SessionOptions) -> int:
    """A call runs on its caller's thread and those of the session's pool: the callers' share; 0 is the default."""
    return max(1, options.threads // _callers(options)) if options.threads else 0


def _session_options(ort: ModuleType, options: SessionOptions) -> Any:
    wanted = ort.SessionOptions()
    wanted.intra_op_num_threads = _threads_each(options)
    wanted.inter_op_num_threads = 1
    wanted.log_severity_level = SILENT
    if _kept(options):
        wanted.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif options.kept is not None:
        wanted.optimized_model_filepath = str(options.kept / _OPTIMIZED)
    wanted.add_session_config_entry("session.intra_op.allow_spinning", "1")
    wanted.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for key, value in options.engine_options.items():
        _set(ort, wanted, key, value)
    return wanted


def _set(ort: ModuleType, wanted: Any, key: str, value: str) -> None:
    """One option by the name of its session config entry, such as ``session.dynamic_block_base``, or of its attribute.

    Raises:
        InputError: ONNX Runtime has no such option.
    """
    if "." in key:
        wanted.add_session_config_entry(key, value)
    elif key == "graph_optimization_level" and hasattr(ort.GraphOptimizationLevel, value):
        wanted.graph_optimization_level = getattr(ort.GraphOptimizationLevel, value)
    elif key in _SWITCHES and value in {"0", "1"}:
        setattr(wanted, key, value == "1")
    else:
        raise InputError(f"ort has no option {key}={value}; see onnxruntime.SessionOptions")


def _probe_cuda(ort: ModuleType, version: str) -> DeviceStatus:
    if _PROVIDERS["cuda"] not in ort.get_available_providers():
        detail = f"{version} was built without CUDA"
        return DeviceStatus("ort:cuda", available=False, detail=detail, remedy=_CUDA_REMEDY)
    try:
        _open_session(ort, _one_node_model(), "cuda", SessionOptions())
    except (EngineError, MissingDeviceError) as error:
        detail = str(error).partition(": ")[2] or str(error)
        return DeviceStatus("ort:cuda", available=False, detail=detail, remedy=_CUDA_REMEDY)
    return DeviceStatus("ort:cuda", available=True, detail=f"{version}, CUDA {ort.cuda_version}")


def _one_node_model() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def _preload_libraries(ort: ModuleType) -> None:
    """Load CUDA libraries that came as Python packages; what is missing is found out by opening a session."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def _why_dropped(ort: ModuleType) -> str:
    """ONNX Runtime tells the reason on stderr only; load its CUDA provider again for the linker's own answer."""
    name = "onnxruntime_providers_cuda.dll" if sys.platform == "win32" else "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(Path(str(ort.__file__)).parent / "capi" / name))
    except OSError as error:
        return str(error)
    return "it does not say why"


@contextlib.contextmanager
def _quiet(ort: ModuleType) -> Iterator[None]:
    ort.set_default_logger_severity(SILENT)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNING)


def _tensor_precision(path: Path) -> str:
    """The narrowest type that the model's weights and casts name."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {attr.i for node in graph.node if node.op_type == "Cast" for attr in node.attribute if attr.name == "to"}
    if any(node.op_type in _INT8_OPS for node in graph.node):
        return "int8"
    if onnx.TensorProto.BFLOAT16 in types:
        return "bf16"
    return "f16" if onnx.TensorProto.FLOAT16 in types else "f32"
