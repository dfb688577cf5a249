"""Runtimes: the protocol, the table of engines, and the target names ``engine:device``.

To add an engine: write one file with a class that fits :class:`Runtime`, and add one line to ``ENGINES``.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mbexport.errors import InputError, MissingDeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    from numpy.typing import NDArray

    from mbexport.quantities import Mode

ENGINES = {
    "ort": "mbexport.runtimes.ort:OrtRuntime",
    "openvino": "mbexport.runtimes.openvino:OpenVinoRuntime",
}


@dataclass(frozen=True)
class DeviceStatus:
    """One target and whether it can be used here; where not, why, and the command or step that mends it."""

    target: str
    available: bool
    detail: str
    remedy: str | None = None
    default: bool = True
    """Whether it is used when no ``--runtime`` is named."""


@dataclass(frozen=True)
class SessionOptions:
    """How to open a model.

    ``parity`` pins float32; ``production`` keeps the engine's defaults. ``threads`` None leaves the engine's default.
    ``batch`` and ``size`` (height, width in pixels) are those of the pictures that will be fed: engines that are slower
    with a dynamic shape make it static. ``size`` None leaves dynamic sides dynamic. ``concurrent`` says that other
    sessions run at the same time, so an engine must not bind its threads to cores.

    ``callers`` call this session at once and share its threads; None lets the engine arrange for the most throughput.
    ``kept`` is a folder in which the engine finds what it made of the model at an earlier start, or leaves it.
    ``engine_options`` are more of the engine's own, in its own words; they win over what the rest would make of them.
    """

    mode: Mode = "parity"
    threads: int | None = None
    batch: int = 1
    size: tuple[int, int] | None = None
    concurrent: bool = False
    callers: int | None = 1
    kept: Path | None = None
    engine_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionFacts:
    """What the engine says that it really does, read back after loading."""

    precision: str
    """Effective precision: f32, tf32, bf16, f16 or int8."""
    placement: Mapping[str, int]
    """Device -> number of nodes."""
    operators: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Device -> the types of the nodes that it runs, in the engine's words, each once."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The exact engine options, for the record."""
    versions: Mapping[str, str] = field(default_factory=dict)


class Session(Protocol):
    """A loaded model. Use as a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by tensor name, as arrays that later runs do not overwrite."""
        ...

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        """A call without arguments that runs ``feeds`` once and returns when the outputs are ready on the host.

        Engines read the arrays in place, so the call keeps them alive.
        """
        ...

    def bind_inner(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object] | None:
        """The same without copying pictures to the device and answers back; None where there is nothing to copy."""
        ...

    @property
    def callers(self) -> int:
        """How many callers at once this session serves best."""
        ...

    def facts(self) -> SessionFacts: ...


class Runtime(Protocol):
    """One engine."""

    package: str
    """Import name of the engine's Python package, such as ``onnxruntime``."""

    def import_package(self) -> object:
        """Import the engine's package, as ``open`` does, so that its time can be told apart from loading a model.

        Raises:
            MissingPackageError: the engine is not installed, or is broken.
        """
        ...

    def devices(self) -> list[DeviceStatus]:
        """Every target of this engine; never raises for something that is merely absent."""
        ...

    def open(self, model: Path, device: str, options: SessionOptions) -> Session:
        """Load ``model`` on ``device``.

        Raises:
            MissingPackageError: the engine is not installed.
            MissingDeviceError: the device is not here, or the engine fell back to another.
        """
        ...


def load_engine(engine: str) -> Runtime:
    """Import an engine's file, which imports nothing heavy until it is used."""
    module, _, name = ENGINES[engine].partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), name)()
    return runtime


def raise_interrupt(error: ImportError) -> None:
    """Go on with the interrupt that ended an import, if one did: native code makes an ImportError of it, and then the
    package is not missing.

    Raises:
        KeyboardInterrupt: ``error`` came of one.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        cause = cause.__cause__ or cause.__context__


_DEVICE = re.compile(r"[a-z]+(\.[0-9a-z]+)*")
"""``gpu.1`` is OpenVINO's second one."""


def split_target(target: str) -> tuple[str, str]:
    """``openvino:cpu`` -> (openvino, cpu).

    Raises:
        InputError: no such engine, or no device's name; whether that device is there is for the engine to say.
    """
    engine, _, device = target.lower().partition(":")
    if engine not in ENGINES or not _DEVICE.fullmatch(device):
        names = ("ort:cpu", "ort:cuda", "openvino:cpu", "openvino:gpu", "openvino:npu", "openvino:auto")
        near = difflib.get_close_matches(target.lower(), names, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
        raise InputError(f"unknown runtime {target!r}; {hint}")
    return engine, device


def all_devices() -> list[DeviceStatus]:
    """Every known target of every engine."""
    return [status for engine in ENGINES for status in load_engine(engine).devices()]


_PACKAGES = {"ort": ("onnxruntime-gpu", "onnxruntime"), "openvino": ("openvino",)}


def engine_versions(targets: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of the engines of these targets, as they are installed."""
    found = {}
    for engine in dict.fromkeys(split_target(target)[0] for target in targets):
        for name in _PACKAGES[engine]:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
    return found


def resolve_targets(named: list[str] | None) -> list[str]:
    """The named targets, or all that are here.

    Raises:
        InputError: an unknown engine or device name.
        MissingDeviceError: a named target is not here, or none is.
    """
    if not named:
        here = [status.target for status in all_devices() if status.available and status.default]
        if not here:
            raise MissingDeviceError("no runtime is usable here; see: mbexport doctor")
        return here
    wanted = list(dict.fromkeys(":".join(split_target(target)) for target in named))
    for engine in dict.fromkeys(split_target(target)[0] for target in wanted):
        found = {status.target: status for status in load_engine(engine).devices()}
        for target in (target for target in wanted if target.startswith(f"{engine}:")):
            _require(target, found)
    return wanted


def _require(target: str, found: Mapping[str, DeviceStatus]) -> None:
    status = found.get(target)
    if status is None:
        raise InputError(f"unknown runtime {target!r}; known: {', '.join(found)}")
    if not status.available:
        raise MissingDeviceError(f"{target} is not usable here: {status.detail}. {status.remedy or ''}".strip())
