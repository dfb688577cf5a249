from __future__ import annotations

import getpass
import json
import platform
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from mbexport import hardware, serde

if TYPE_CHECKING:
    from pathlib import Path


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_this_machine_and_nothing_personal() -> None:
    found = hardware.detect()
    assert found.logical_cores == psutil.cpu_count()
    assert 1 <= found.physical_cores <= found.logical_cores
    assert found.memory_bytes == psutil.virtual_memory().total
    assert found.slug
    values = set(json.dumps(json.loads(serde.json_bytes(found))).replace('"', " ").replace(",", " ").split())
    assert not values & {platform.node(), getpass.getuser()}


X86 = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 143
model name	: Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz
stepping	: 8
flags		: fpu mmx avx2 avx512f avx512_vnni amx_tile amx_int8 hypervisor

processor	: 1
model name	: another
"""


def test_x86_is_read_from_proc_without_starting_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "proc/cpuinfo", X86)
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.setitem(sys.modules, "cpuinfo", None)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    found = hardware.detect(tmp_path)
    assert (found.cpu_family, found.cpu_model, found.cpu_stepping) == (6, 143, 8)
    assert found.instruction_sets == ["avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8"]
    assert found.virtual_machine is True
    assert found.architecture == "x86_64"
    assert found.slug == "intel-xeon-platinum-8480c-f6m143-4c"


def test_arm_has_flags_in_proc_and_its_name_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "proc/cpuinfo", "processor : 0\nFeatures : fp asimd asimddp i8mm\nCPU part : 0xd40\n")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setitem(
        sys.modules, "cpuinfo", SimpleNamespace(get_cpu_info=lambda: {"brand_raw": "Neoverse-V1", "model": 1})
    )
    found = hardware.detect(tmp_path)
    assert (found.cpu, found.cpu_family, found.cpu_model) == ("Neoverse-V1", None, 1)
    assert found.instruction_sets == ["asimd", "asimddp", "i8mm"]
    assert found.virtual_machine is None


def test_flags_are_known_under_both_spellings() -> None:
    assert hardware.instruction_sets(["avx512vnni", "AVX2", "rdrand"]) == ["avx2", "avx512_vnni"]


class NvmlError(Exception):
    pass


def nvml(*, driver: bool) -> SimpleNamespace:
    def init() -> None:
        if not driver:
            raise NvmlError

    names = ["NVIDIA H100", "NVIDIA T4"]
    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: names[handle],
    )


def test_accelerators_need_package_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert hardware.accelerators() == []
    monkeypatch.setitem(sys.modules, "pynvml", nvml(driver=False))
    assert hardware.accelerators() == []
    monkeypatch.setitem(sys.modules, "pynvml", nvml(driver=True))
    assert hardware.accelerators() == ["NVIDIA H100", "NVIDIA T4"]


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlShutdown"]
)
def test_driver_that_breaks_down_later_has_no_accelerators(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NvmlError

    broken = nvml(driver=True)
    setattr(broken, call, fail)
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    assert hardware.accelerators() == []


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/cpu.max": "800000 100000\n",
            },
            2.0,
        ),
        # In a container: the host's path, which is not visible, and the own limit at the mount's top.
        ({"proc/self/cgroup": "0::/docker/123\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/job\n3:cpuset:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpuset/job/cpu.cfs_quota_us": "1\n",
                "sys/fs/cgroup/cpuset/job/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_cpu_quota_of_both_cgroup_versions(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        put(tmp_path / name, text)
    assert hardware.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("quota", "threads", "most"),
    [(None, 2, 4), ("800000", 2, 4), ("150000", 1, 2), ("20000", 1, 1), ("200000", 2, 2)],
)
def test_threads_are_cores_within_mask_and_quota(
    quota: str | None, threads: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight CPUs in four cores, of which the mask leaves two whole cores.
    for cpu in range(8):
        put(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _self: [0, 1, 4, 5], raising=False)
    if quota is not None:
        put(tmp_path / "proc/self/cgroup", "0::/\n")
        put(tmp_path / "sys/fs/cgroup/cpu.max", f"{quota} 100000\n")
    plan = hardware.usable_threads(tmp_path)
    assert (plan.threads, plan.most) == (threads, most)
    assert "2 physical cores among the 4 CPUs" in plan.reasons[0]
    assert len(plan.reasons) == (1 if quota is None else 2)
