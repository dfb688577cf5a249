from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mbexport.bench.conditions import CpuTimes, peak_resident_bytes, read_conditions, read_cpu_times, resident_bytes
from mbexport.bench.verdict import judge
from mbexport.profile import Conditions
from mbexport.samples import packed
from tests.measured import answer, replicate

if TYPE_CHECKING:
    from mbexport.bench.plan import WorkerAnswer
    from mbexport.profile import Replicate

SAMPLES = [2_000_000] * 300


def answers(*replicates: Replicate, **changes: Any) -> list[WorkerAnswer]:
    return [answer([], replicate=one, **changes) for one in replicates]


def test_quiet_and_equal_processes_are_ok() -> None:
    assert judge(answers(*[replicate(SAMPLES)] * 3), "parity") == ("ok", [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"samples": packed([2_200_000] * 300)}, "medians spread over 10.0% (limit 5%)"),
        ({"warmup_settled": False}, "warm-up did not settle in 1 of 3 processes"),
        ({"after": Conditions(steal_share=0.031)}, "the hypervisor took 3.1% of the CPU time"),
        ({"after": Conditions(others_share=0.5)}, "other processes used 50% of the CPU time"),
        ({"after": Conditions(throttled_share=0.3)}, "the CPU quota held the process back for 30% of the time"),
        (
            {"before": Conditions(frequency_hz=3e9), "after": Conditions(frequency_hz=2.4e9)},
            "the CPU's frequency changed by 20% while measuring",
        ),
        ({"samples": packed([2_000_000] * 300 + [2_400_000] * 500)}, "latency drifted by 17% within a process"),
    ],
)
def test_one_disturbed_process_makes_a_row_noisy(changes: dict[str, Any], reason: str) -> None:
    verdict, reasons = judge(answers(replicate(SAMPLES), replicate(SAMPLES, **changes), replicate(SAMPLES)), "parity")
    assert verdict == "noisy"
    assert any(reason in told for told in reasons)


def test_a_system_that_tells_nothing_is_not_blamed() -> None:
    assert judge(answers(*[replicate(SAMPLES, after=Conditions())] * 3), "parity")[0] == "ok"


def test_fewer_processes_are_noisy() -> None:
    verdict, reasons = judge(answers(replicate(SAMPLES)), "parity")
    assert verdict == "noisy"
    assert "1 of 3 processes" in reasons[0]


@pytest.mark.parametrize(("each", "verdict"), [(3, "invalid"), (4, "ok")])
def test_a_median_needs_eleven_samples(each: int, verdict: str) -> None:
    # P(Binomial(n, 1/2) <= 1) = (n + 1) / 2**n falls under 1% at n = 11.
    assert 12 / 2**11 <= 0.01 < 11 / 2**10
    assert judge(answers(*[replicate(SAMPLES[:each])] * 3), "parity")[0] == verdict


def test_no_samples_are_invalid() -> None:
    assert judge([], "parity")[0] == "invalid"
    assert judge(answers(*[replicate([])] * 3), "parity")[0] == "invalid"


@pytest.mark.parametrize("precision", ["bf16", "f16", "tf32"])
def test_parity_in_another_precision_is_invalid_and_production_is_not(precision: str) -> None:
    narrow = answers(*[replicate(SAMPLES)] * 3, precision=precision)
    verdict, reasons = judge(narrow, "parity")
    assert verdict == "invalid"
    assert precision in reasons[0]
    assert judge(narrow, "production") == ("ok", [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "bf16"}, "the processes differ in precision: f32; f32; bf16"),
        ({"placement": {"npu": 2, "cpu": 3}}, "in placement: 5 nodes on cpu; 5 nodes on cpu; 3 nodes on cpu, 2 nodes"),
        ({"inputs_sha256": "11"}, "the processes differ in inputs: 00; 00; 11"),
    ],
)
def test_processes_that_did_not_do_the_same_are_no_row(changes: dict[str, Any], reason: str) -> None:
    verdict, reasons = judge([answer(SAMPLES), answer(SAMPLES), answer(SAMPLES, **changes)], "production")
    assert verdict == "invalid"
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_parity_asks_for_the_precision_of_the_file() -> None:
    half = answers(*[replicate(SAMPLES)] * 3, precision="f16")
    assert judge(half, "parity", "f16") == ("ok", [])
    assert judge(half, "parity", "int8") == ("invalid", ["parity means the file's int8, but the engine ran f16"])
    assert judge(answers(*[replicate(SAMPLES)] * 3, precision="int8"), "parity", "int8") == ("ok", [])


def test_any_narrow_process_makes_parity_invalid() -> None:
    _, reasons = judge([answer(SAMPLES), answer(SAMPLES), answer(SAMPLES, precision="bf16")], "parity")
    assert reasons[0] == "parity means float32, but the engine ran bf16"


def test_shares_are_those_between_two_reads() -> None:
    start = CpuTimes(total_s=1000.0, busy_s=600.0, steal_s=50.0, own_s=5.0, throttled_s=1.0, wall_s=100.0)
    end = CpuTimes(total_s=1010.0, busy_s=606.0, steal_s=50.5, own_s=9.0, throttled_s=2.5, wall_s=110.0)
    found = read_conditions(start, end)
    assert found.throttled_share == pytest.approx(0.15)
    assert found.steal_share == pytest.approx(0.05)
    assert found.others_share == pytest.approx(0.2)
    assert read_conditions().steal_share is None
    assert read_conditions(start, start).others_share is None


def test_own_work_is_not_the_others() -> None:
    start = read_cpu_times()
    while read_cpu_times().own_s < start.own_s + 0.3:
        pass
    end = read_cpu_times()
    assert end.total_s > start.total_s
    assert end.own_s - start.own_s <= end.busy_s - start.busy_s + 0.05  # the kernel counts in ticks of 10 ms
    assert read_conditions(start, end).memory_available_bytes


def test_a_frequency_that_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise NotImplementedError

    monkeypatch.setattr(psutil, "cpu_freq", unknown)
    assert read_conditions().frequency_hz is None


def test_memory_grows_with_what_is_held_and_the_peak_stays() -> None:
    before = resident_bytes()
    held = bytearray(b"x" * 50_000_000)
    grown = resident_bytes() - before
    peak = peak_resident_bytes()
    del held
    assert grown > 40_000_000
    assert peak >= before + grown
    assert peak_resident_bytes() >= peak
