from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

from mbexport.operators import rates
from mbexport.operators.rates import measure_rates, stream_size_bytes
from mbexport.runtimes.profiled import EngineProfile, ProfiledNode

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


def test_the_stream_is_twice_the_largest_cache(tmp_path: Path) -> None:
    assert stream_size_bytes(tmp_path) == 64 * MIB
    for index, size in enumerate(("32K", "1024K", "98304K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert stream_size_bytes(tmp_path) == 2 * 96 * MIB


@pytest.fixture
def one_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "stream_size_bytes", lambda: MIB)


@pytest.mark.usefixtures("one_mib")
def test_rates_are_work_over_the_best_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine adds of its own is faster here, and does not count."""

    def profiler(*_: Any) -> EngineProfile:
        nodes = [
            ProfiledNode("layout", [], "ReorderInput", "k", None, [1e-9]),
            ProfiledNode("t2", ["t2"], "Conv", "k", None, [4e-3, 2e-3]),
            ProfiledNode("t1", ["t1"], "Conv", "k", None, [5e-3, 3e-3]),
        ]
        return EngineProfile(nodes, [1.0])

    monkeypatch.setattr(rates, "load_profiler", lambda _: profiler)
    found = measure_rates("ort", "cpu", "parity", 1, "f32")
    assert found.macs_per_s == pytest.approx(28 * 28 * 256 * 256 / 2e-3)
    assert found.bytes_per_s == pytest.approx(2 * MIB / 3e-3)


@pytest.mark.usefixtures("one_mib")
@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_real_engines_have_rates(engine: str) -> None:
    found = measure_rates(engine, "cpu", "parity", 1, "f32")
    # no machine that runs Python is slower than a million, or as fast as a petaflop a core
    assert found.macs_per_s is not None
    assert 1e6 < found.macs_per_s < 1e15
    assert found.bytes_per_s is not None
    assert 1e6 < found.bytes_per_s < 1e15


class _Memory(NamedTuple):
    available: int


@pytest.mark.usefixtures("one_mib")
def test_no_rate_where_it_would_be_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product in another precision than the network's, and an array that does not fit into memory."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _Memory(4 * MIB - 1))
    found = measure_rates("ort", "cpu", "parity", 1, "int8")
    assert (found.macs_per_s, found.bytes_per_s) == (None, None)
