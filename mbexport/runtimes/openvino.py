"""OpenVINO: a target for every device that it reports, and ``openvino:auto``, which lets it choose."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, Self

from mbexport.errors import ArtifactError, EngineError, MissingDeviceError, MissingPackageError
from mbexport.runtimes import DeviceStatus, SessionFacts, SessionOptions, raise_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType, TracebackType

    from numpy.typing import NDArray

_INSTALL = "pip install 'mbexport[openvino]'"
_DRIVERS = {
    "GPU": "Install the driver of an Intel GPU (packages intel-opencl-icd and ocl-icd-libopencl1)",
    "NPU": "Install the driver of an Intel NPU (linux-npu-driver)",
}
_PRECISIONS = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "f16", "f32": "f32"}  # narrowest first
_PRODUCTS = {"convolution", "groupconvolution", "deconvolution", "fullyconnected", "matmul", "gemm"}
_NOT_WORK = {"const", "constant", "input", "inputlayout", "data", "parameter", "output", "result"}


class OpenVinoRuntime:
    """Engine ``openvino``."""

    package = "openvino"

    def import_package(self) -> ModuleType:
        return import_openvino()

    def devices(self) -> list[DeviceStatus]:
        try:
            ov = import_openvino()
        except MissingPackageError as error:
            detail, _, remedy = str(error).partition("; ")
            names = ("cpu", "gpu", "npu", "auto")
            return [
                DeviceStatus(f"openvino:{name}", available=False, detail=detail, remedy=remedy, default=name != "auto")
                for name in names
            ]
        core = ov.Core()
        here = core.available_devices
        found = [
            DeviceStatus(f"openvino:{name.lower()}", available=True, detail=_full_name(core, name)) for name in here
        ]
        absent = [_absent_or_alias(core, family, here) for family in _DRIVERS if family not in here]
        choice = f"OpenVINO's own choice among {', '.join(here)}"
        auto = DeviceStatus("openvino:auto", available=bool(here), detail=choice, default=False)
        return [*found, *absent, auto]

    def open(self, model: Path, device: str, options: SessionOptions) -> OpenVinoSession:
        """Load ``model`` (ONNX or OpenVINO's own IR) on a device such as ``cpu``, ``gpu.1`` or ``auto``.

        The batch is always made static, and so are height and width where ``options`` tell them: with a dynamic batch
        OpenVINO is 1.1 to 1.5 times slower.

        Raises:
            ArtifactError: the file is not a model.
            EngineError: OpenVINO cannot run the model.
            MissingDeviceError: OpenVINO does not report the device.
            MissingPackageError: openvino is not installed.
        """
        ov = import_openvino()
        core = ov.Core()
        name, here = device.upper(), core.available_devices
        if name != "AUTO" and not any(known == name or known.startswith(f"{name}.") for known in here):
            raise MissingDeviceError(f"OpenVINO reports no device {name} here, only {', '.join(here)}")
        config = _config(core, name, options)
        with _engine_errors(ov, f"openvino:{device} cannot load {model.name}"):
            network = _read(ov, core, model)
            network.reshape({port: _static(port.partial_shape, options) for port in network.inputs})
            compiled = core.compile_model(network, name, config)
        return OpenVinoSession(ov, compiled, _output_names(network), f"openvino:{device}", config)


class OpenVinoSession:
    """A model compiled by OpenVINO. ``run`` raises :class:`EngineError`; a bound call raises the engine's own."""

    def __init__(
        self, ov: ModuleType, compiled: Any, outputs: list[str], target: str, config: Mapping[str, Any]
    ) -> None:
        self._ov = ov
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = outputs
        self._target = target
        self._config = config

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._request = self._compiled = None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with _engine_errors(self._ov, f"{self._target} failed while running"):
            return dict(zip(self._outputs, self._request.infer(dict(feeds)).values(), strict=True))

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        """Inputs shared, not copied; the outputs stay in OpenVINO's host memory."""
        request = self._compiled.create_infer_request()
        for name, array in feeds.items():
            request.set_tensor(name, self._ov.Tensor(array, shared_memory=True))
        return functools.partial(_infer, request, feeds)

    def bind_inner(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Nothing is copied on a CPU; on other devices it is not told apart."""

    @property
    def callers(self) -> int:
        return int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def facts(self) -> SessionFacts:
        nodes = [node.get_rt_info() for node in self._compiled.get_runtime_model().get_ordered_ops()]
        kinds = [(_layer_type(info), info["runtimePrecision"].astype(str)) for info in nodes]
        work = [(layer, precision) for layer, precision in kinds if layer not in _NOT_WORK]
        # While "auto" still starts up, it names the device in parentheses.
        devices = "+".join(name.strip("()").lower() for name in self._compiled.get_property("EXECUTION_DEVICES"))
        return SessionFacts(
            precision=_narrowest(work),
            placement={devices: len(work)},
            operators={devices: sorted({layer for layer, _ in work})},
            options={key: str(value) for key, value in {**self._config, **self._streams()}.items()},
            versions={"openvino": self._ov.get_version().partition("-releases")[0]},
        )

    def _streams(self) -> dict[str, Any]:
        """As many as OpenVINO made; of several devices at once it does not say."""
        known = self._compiled.get_property("SUPPORTED_PROPERTIES")
        return {"NUM_STREAMS": self._compiled.get_property("NUM_STREAMS")} if "NUM_STREAMS" in known else {}


def _infer(request: Any, _held: Mapping[str, NDArray[Any]]) -> None:
    """Run a bound request. A shared tensor does not keep its array alive, so the bound call holds the arrays."""
    request.infer(share_outputs=True)


def import_openvino() -> ModuleType:
    """Import openvino without its telemetry, which would open the network and write to the home folder on import.

    Raises:
        MissingPackageError: openvino is not installed, or is broken.
    """
    blocked = "openvino_telemetry" not in sys.modules
    if blocked:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"openvino is not installed; {_INSTALL}") from error
    except ImportError as error:
        raise_interrupt(error)
        raise MissingPackageError(f"openvino is broken ({error}); pip install --force-reinstall openvino") from error
    finally:
        if blocked:
            del sys.modules["openvino_telemetry"]
    module: ModuleType = openvino
    return module


def _full_name(core: Any, device: str) -> str:
    return str(core.get_property(device, "FULL_DEVICE_NAME")).strip()


def _absent_or_alias(core: Any, family: str, here: list[str]) -> DeviceStatus:
    """``gpu`` where only numbered ones are reported stands for the first of them."""
    target = f"openvino:{family.lower()}"
    if f"{family}.0" in here:
        return DeviceStatus(target, available=True, detail=f"the same as {target}.0", default=False)
    detail = f"OpenVINO reports no {family}{_plugin_complaint(core, family)}"
    return DeviceStatus(target, available=False, detail=detail, remedy=_DRIVERS[family])


def _plugin_complaint(core: Any, family: str) -> str:
    """The library that the device's plugin lacks, where that is the reason."""
    try:
        core.get_property(family, "AVAILABLE_DEVICES")
    except RuntimeError as error:
        return " (" + _last_line(error).rpartition('": ')[2] + ")"
    return ""


def _config(core: Any, device: str, options: SessionOptions) -> dict[str, Any]:
    # The cache is OpenVINO's own and not a device's, which does not list it among its properties.
    cache = {} if options.kept is None else {"CACHE_DIR": str(options.kept)}
    if device != "AUTO":
        return _device_config(core, device, options) | cache
    each = {name: _device_config(core, name, options) for name in core.available_devices}
    return {"PERFORMANCE_HINT": "LATENCY", "DEVICE_PROPERTIES": each} | cache


def _device_config(core: Any, device: str, options: SessionOptions) -> dict[str, Any]:
    """What is wanted of the device, without what it does not know (a GPU has no threads to set)."""
    wanted = _arrangement(options.callers)
    if options.threads is not None:
        wanted["INFERENCE_NUM_THREADS"] = options.threads
    if options.mode == "parity":
        wanted["INFERENCE_PRECISION_HINT"] = "f32"
    if options.concurrent:
        wanted["ENABLE_CPU_PINNING"] = False  # every session with one thread would be bound to the same core
    supported = core.get_property(device, "SUPPORTED_PROPERTIES")
    known = {key: value for key, value in wanted.items() if key in supported}
    return known | dict(options.engine_options)  # these were asked for by name: OpenVINO refuses what it does not know


def _arrangement(callers: int | None) -> dict[str, Any]:
    """How the threads are divided into streams: left to OpenVINO where there is more than one caller."""
    if callers == 1:
        return {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if callers is None:
        return {"PERFORMANCE_HINT": "THROUGHPUT"}
    return {"PERFORMANCE_HINT": "THROUGHPUT", "PERFORMANCE_HINT_NUM_REQUESTS": callers}


def _read(ov: ModuleType, core: Any, model: Path) -> Any:
    """Read an ONNX file with that front end alone: left to find out, OpenVINO tries all, and some log to stderr."""
    try:
        if model.suffix == ".onnx":
            frontend = ov.frontend.FrontEndManager().load_by_framework("onnx")
            network = frontend.convert(frontend.load(str(model)))
        else:
            network = core.read_model(model)
    except ov.frontend.GeneralFailure as error:
        raise ArtifactError(f"{model} is not an ONNX model ({_last_line(error)}); build the artifact again") from error
    if not network.outputs:
        raise ArtifactError(f"{model} is not an ONNX model (it has no outputs); build the artifact again")
    return network


def _static(shape: Any, options: SessionOptions) -> Any:
    """With the batch first, and height and width for the open sides in their order, whatever the layout."""
    shape[0] = options.batch
    open_sides = [axis for axis, side in enumerate(shape) if side.is_dynamic]
    for axis, side in zip(open_sides, options.size or (), strict=False):
        shape[axis] = side
    return shape


def _output_names(network: Any) -> list[str]:
    """The file's own output names: one output may carry several, in no order, where nodes were fused."""
    names = []
    for result, port in zip(network.get_results(), network.outputs, strict=True):
        own = result.get_friendly_name().partition("/sink_port_")[0]
        names.append(own if own in port.names else port.get_any_name())
    return names


def _layer_type(info: Any) -> str:
    name: str = info["layerType"].astype(str)
    return name.replace("_", "").lower()


def _narrowest(work: list[tuple[str, str]]) -> str:
    """The narrowest precision among convolutions and matrix products; of all nodes where there is neither."""
    products = [precision for layer, precision in work if layer in _PRODUCTS] or [precision for _, precision in work]
    names = [name for key, name in _PRECISIONS.items() if key in products]
    return names[0] if names else "unknown"


@contextlib.contextmanager
def _engine_errors(ov: ModuleType, what: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ov.frontend.OpConversionFailure, ov.frontend.OpValidationFailure) as error:
        raise EngineError(f"{what}: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    """OpenVINO's messages begin with the places in its source and end with what happened."""
    return str(error).strip().rpartition("\n")[2]
