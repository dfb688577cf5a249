"""What this machine is, and how many threads an engine may have on it."""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from mbexport.profile import Hardware, ThreadPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

INSTRUCTION_SETS = (
    *("sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Those that inference kernels are written for, spelled as Linux does. The rest would only part equal machines."""

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def detect(root: Path = Path("/")) -> Hardware:
    """This machine. ``root`` is where ``/proc`` lies."""
    info = _cpu_info(root)
    logical = psutil.cpu_count() or 1
    return Hardware(
        architecture=_architecture(),
        cpu=info["name"] or platform.processor() or _architecture(),
        cpu_family=info["family"],
        cpu_model=info["model"],
        cpu_stepping=info["stepping"],
        physical_cores=psutil.cpu_count(logical=False) or logical,
        logical_cores=logical,
        memory_bytes=psutil.virtual_memory().total,
        instruction_sets=instruction_sets(info["flags"]),
        accelerators=accelerators(),
        virtual_machine="hypervisor" in info["flags"] if _architecture() == "x86_64" else None,
    )


def instruction_sets(flags: Iterable[str]) -> list[str]:
    """Of a CPU's flags, those that matter here; ``avx512vnni`` and ``avx512_vnni`` are the same one."""
    found = {flag.lower().replace("_", "") for flag in flags}
    return [name for name in INSTRUCTION_SETS if name.replace("_", "") in found]


def accelerators() -> list[str]:
    """Names of the NVIDIA GPUs; empty without the package ``nvidia-ml-py`` or a driver that answers."""

    def names(nvml: Any) -> list[str]:
        return [nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(n)) for n in range(nvml.nvmlDeviceGetCount())]

    return _asked(names) or []


def accelerator_clock_hz() -> float | None:
    """What the first NVIDIA GPU's arithmetic units run at now; None without one."""

    def clock_hz(nvml: Any) -> float:
        return float(nvml.nvmlDeviceGetClockInfo(nvml.nvmlDeviceGetHandleByIndex(0), nvml.NVML_CLOCK_SM)) * 1e6

    return _asked(clock_hz)


def accelerator_driver() -> str | None:
    """The NVIDIA driver's version; None without one."""
    return _asked(lambda nvml: str(nvml.nvmlSystemGetDriverVersion()))


def _asked(question: Callable[[Any], T]) -> T | None:
    """What NVIDIA's management library answers; None where it is not here, or refuses."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return question(pynvml)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def usable_threads(root: Path = Path("/")) -> ThreadPlan:
    """Thread counts by affinity mask, physical cores and cgroup CPU quota. ``root`` holds ``/proc`` and ``/sys``."""
    cpus = _allowed_cpus()
    cores = _physical_cores(cpus, root)
    reasons = [f"{_counted(cores, 'physical core')} among the {_counted(len(cpus), 'CPU')} that this process may use"]
    threads, most = cores, len(cpus)
    quota = cpu_quota(root)
    if quota is not None:
        reasons.append(f"a cgroup quota of {quota:g} CPU{'' if quota == 1 else 's'}")
        # A thread beyond the whole CPUs of the quota would be throttled in every period.
        threads, most = min(threads, max(1, math.floor(quota))), min(most, max(1, math.ceil(quota)))
    return ThreadPlan(threads=threads, most=most, reasons=reasons)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs that this process's cgroups (v1 or v2) grant, the tightest of all levels; None without a limit."""
    return min((quota for folder in _cgroup_folders(root) for quota in _quotas(folder)), default=None)


def throttled_s(root: Path = Path("/")) -> float | None:
    """Seconds since their start in which CPU quotas held this process's cgroups back; None where none says so."""
    found = [seconds for folder in _cgroup_folders(root) for seconds in _throttled_s(folder)]
    return max(found, default=None)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _architecture() -> str:
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def _cpu_info(root: Path) -> dict[str, Any]:
    """Name, family, model, stepping and flags of the first CPU.

    py-cpuinfo starts several processes and takes a second, so it is asked only where Linux does not name the CPU.
    """
    file = root / "proc/cpuinfo"
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    pairs = [(key.strip().lower(), value.strip()) for key, colon, value in (line.partition(":") for line in lines)]
    first = dict(reversed(pairs))
    flags = (first.get("flags") or first.get("features") or "").split()
    if first.get("model name"):
        numbers = {key: _number(first.get(name)) for key, name in _NUMBERS.items()}
        return {"name": first["model name"], "flags": flags, **numbers}
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    return {
        "name": info.get("brand_raw", ""),
        "flags": flags or info.get("flags", []),
        **{key: info.get(key) for key in _NUMBERS},
    }


_NUMBERS = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _allowed_cpus() -> list[int]:
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # not on macOS
        return list(process.cpu_affinity() or [0])
    return list(range(psutil.cpu_count() or 1))


def _physical_cores(cpus: list[int], root: Path) -> int:
    """Physical cores behind the CPUs: siblings of one core share its arithmetic units."""
    files = [root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list" for cpu in cpus]
    if all(file.is_file() for file in files):
        return len({file.read_text().strip() for file in files})
    return min(len(cpus), psutil.cpu_count(logical=False) or len(cpus))


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """This process's cgroup folders and all above them.

    In a container the path in ``/proc/self/cgroup`` may be the host's, with nothing under it here: then only the
    mount's top, which the walk ends with, shows the container's own limit.
    """
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else []:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if "cpu" in names:
            mounts = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"]
        elif controllers == "":
            mounts = [root / "sys/fs/cgroup"]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / folder for folder in (inner, *inner.parents))


def _quotas(folder: Path) -> Iterator[float]:
    """The CPU limit of one cgroup, in v2's and v1's files; "max" and -1 mean none."""
    unified = _words(folder / "cpu.max")
    if len(unified) == 2 and unified[0] != "max":
        yield int(unified[0]) / int(unified[1])
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        yield int(quota[0]) / int(period[0])


def _throttled_s(folder: Path) -> Iterator[float]:
    """``cpu.stat`` counts microseconds in v2, nanoseconds in v1."""
    words = _words(folder / "cpu.stat")
    counts = dict(zip(words[::2], words[1::2], strict=False))
    if "throttled_usec" in counts:
        yield int(counts["throttled_usec"]) * 1e-6
    if "throttled_time" in counts:
        yield int(counts["throttled_time"]) * 1e-9


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.is_file() else []
