"""What of mbexport's needs is on this machine, what is broken, and the command that mends it. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from mbexport.profile import Hardware, ThreadPlan
from mbexport.runtimes import DeviceStatus, all_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EXTRAS = ("build", "openvino", "report", "cuda")
"""The extras that a user may want; ``test`` and ``all`` are not looked at."""
_ONNXRUNTIMES = ("onnxruntime-gpu", "onnxruntime")
_ENGINES = (*_ONNXRUNTIMES, "openvino")
"""These are probed as devices, by the file that knows how to import them."""
_MODULES = {"pillow": "PIL", "py-cpuinfo": "cpuinfo", "nvidia-ml-py": "pynvml"}
"""Import names that are not the package's name with underscores."""

_IMPORT_EACH = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    sys.stderr.write(f"\\nbegin {name}\\n"); sys.stderr.flush()
    try:
        importlib.import_module(name)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"\\nbroken {name} {text}\\n"); sys.stderr.flush()
"""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One Python package; ``version`` None means that it is not installed."""

    name: str
    version: str | None


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """The base install or one extra. ``install`` is the command that completes it."""

    name: str
    complete: bool
    packages: list[Package]
    install: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is here and broken, and the command that mends it."""

    what: str
    remedy: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``mbexport doctor`` says."""

    mbexport: str
    python: str
    hardware: Hardware
    threads: ThreadPlan
    devices: list[DeviceStatus]
    extras: list[Extra]
    problems: list[Problem]


def diagnose(progress: Callable[[str], None] | None = None) -> Diagnosis:
    """Look at packages, engines and devices. Packages are imported in a process of their own, which takes seconds.

    Args:
        progress: told what is being looked at.
    """
    from mbexport.hardware import detect, usable_threads

    tell = progress or (lambda _message: None)
    tell("probe the devices")
    devices = all_devices()
    tell("look at the packages")
    extras = _extras(importlib.metadata.requires("mbexport") or [], devices)
    installed = [package.name for extra in extras for package in extra.packages if package.version is not None]
    tell("import the packages")
    broken = import_problems([name for name in installed if name not in _ENGINES])
    return Diagnosis(
        mbexport=importlib.metadata.version("mbexport"),
        python=platform.python_version(),
        hardware=detect(),
        threads=usable_threads(),
        devices=devices,
        extras=extras,
        problems=[*_rivals(), *_broken_engines(devices), *broken],
    )


def import_problems(packages: Sequence[str]) -> list[Problem]:
    """Import each package in one fresh process; those that raise, or that take the process down, are problems.

    A process that ends before it can import the first one is a problem of Python itself.
    """
    modules = {_MODULES.get(name, name.replace("-", "_")): name for name in packages}
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "ORT_DISABLE_TELEMETRY": "1"}
    process = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORT_EACH, json.dumps(list(modules))],
        check=False,
        capture_output=True,
        env=environment,
        text=True,
        errors="replace",
    )
    broken = dict(re.findall(r"^broken (\S+) (.*)$", process.stderr, flags=re.MULTILINE))
    if process.returncode != 0:
        begun = re.findall(r"^begin (\S+)$", process.stderr, flags=re.MULTILINE)
        if not begun:
            return [_broken_python(process)]
        broken[begun[-1]] = f"importing it ends the process with code {process.returncode}"
    return [
        Problem(what=f"{modules[module]} cannot be imported: {why}", remedy=_reinstall(modules[module]))
        for module, why in broken.items()
    ]


def _broken_python(process: subprocess.CompletedProcess[str]) -> Problem:
    """What usually stands in Python's way is a module of the user's that has a standard module's name."""
    last = process.stderr.strip().rpartition("\n")[2]
    what = f"a fresh Python ends with code {process.returncode} before it imports anything"
    return Problem(what=f"{what}: {last}" if last else what, remedy="unset PYTHONPATH")


def _extras(requirements: Iterable[str], devices: Iterable[DeviceStatus]) -> list[Extra]:
    """The base install and the extras, read from mbexport's own metadata.

    Metadata does not name the CUDA libraries, which are extras of onnxruntime-gpu and may also come with the system:
    ``cuda`` is complete where ONNX Runtime opens a session on it.
    """
    names: dict[str, list[str]] = {"base": [], **{extra: [] for extra in EXTRAS}}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        group = extra[1] if extra else "base"
        if name and group in names:
            names[group].append(name[0].lower())
    names["base"] = _with_one_onnxruntime(names["base"])
    usable = {status.target: status.available for status in devices}
    works = {"cuda": usable.get("ort:cuda", False)}
    return [_extra(name, packages, works=works.get(name, True)) for name, packages in names.items()]


def _with_one_onnxruntime(names: list[str]) -> list[str]:
    """Which of the two packages of ONNX Runtime is wanted depends on the platform; either serves."""
    here = next((name for name in _ONNXRUNTIMES if _version(name)), _ONNXRUNTIMES[0])
    return sorted({here if name in _ONNXRUNTIMES else name for name in names})


def _extra(name: str, names: list[str], *, works: bool) -> Extra:
    packages = [Package(name=package, version=_version(package)) for package in names]
    return Extra(
        name=name,
        complete=works and all(package.version for package in packages),
        packages=packages,
        install="pip install mbexport" if name == "base" else f"pip install 'mbexport[{name}]'",
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rivals() -> list[Problem]:
    """Both packages of ONNX Runtime write to the same folder: the later one wins, and removing one breaks the other."""
    if not all(_version(name) for name in _ONNXRUNTIMES):
        return []
    both = " ".join(_ONNXRUNTIMES)
    return [
        Problem(
            what="onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
            remedy=f"pip uninstall -y {both} && pip install {_ONNXRUNTIMES[0]}",
        )
    ]


def _broken_engines(devices: Iterable[DeviceStatus]) -> list[Problem]:
    """Engines that are installed and yet do not load say so in the details of their devices."""
    broken = {device.detail: device for device in devices if not device.available and " is broken" in device.detail}
    return [Problem(what=detail, remedy=device.remedy or "mbexport doctor -v") for detail, device in broken.items()]


def _reinstall(package: str) -> str:
    return f"pip install --force-reinstall {package}"
