"""The state of the machine around a measurement, and the memory of the measuring process."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from mbexport import hardware
from mbexport.profile import Conditions

_STATUS = Path("/proc/self/status")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds since boot over all cores, and this process's own, at one moment."""

    total_s: float
    busy_s: float
    steal_s: float | None
    own_s: float
    throttled_s: float | None
    """In which the cgroup's quota held its processes back."""
    wall_s: float


def read_cpu_times() -> CpuTimes:
    times = psutil.cpu_times()
    steal_s = getattr(times, "steal", None)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts guests' time in user and nice already.
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    busy_s = total_s - idle_s - (steal_s or 0.0)
    return CpuTimes(total_s, busy_s, steal_s, time.process_time(), hardware.throttled_s(), time.monotonic())


def read_conditions(since: CpuTimes | None = None, now: CpuTimes | None = None, *, device: str = "cpu") -> Conditions:
    """The state now; the shares of time are those between ``since`` and ``now``, None without them.

    Args:
        since: an earlier moment.
        now: a later one.
        device: of the engine; of ``cuda`` the clock is read too.
    """
    shares = _shares(since, now) if since is not None and now is not None and now.total_s > since.total_s else {}
    return Conditions(
        load_1min=psutil.getloadavg()[0],
        frequency_hz=_frequency_hz(),
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        memory_available_bytes=psutil.virtual_memory().available,
        accelerator_clock_hz=hardware.accelerator_clock_hz() if device == "cuda" else None,
        **shares,
    )


def _shares(since: CpuTimes, now: CpuTimes) -> dict[str, float]:
    whole_s = now.total_s - since.total_s
    others_s = (now.busy_s - since.busy_s) - (now.own_s - since.own_s)
    shares = {"others_share": others_s / whole_s}
    if now.steal_s is not None and since.steal_s is not None:
        shares["steal_share"] = (now.steal_s - since.steal_s) / whole_s
    if now.throttled_s is not None and since.throttled_s is not None and now.wall_s > since.wall_s:
        shares["throttled_share"] = (now.throttled_s - since.throttled_s) / (now.wall_s - since.wall_s)
    return {name: min(1.0, max(0.0, share)) for name, share in shares.items()}


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Peak resident set size of this process.

    On Linux not from getrusage: its figure outlives exec, so a small process started by a large one would show
    the large one's.
    """
    if _STATUS.is_file():
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return int(info.peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _frequency_hz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):  # psutil's ways of saying that this system does not tell
        return None
    return None if frequency is None or not frequency.current else frequency.current * 1e6
