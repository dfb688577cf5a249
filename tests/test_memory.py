from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from mbexport.architecture import parameters
from mbexport.errors import SpecError
from mbexport.memory import build_bytes, check_memory
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ModelSpec(variant="small")
HUGE = 2**80


def set_available(monkeypatch: pytest.MonkeyPatch, count_bytes: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=count_bytes))


def test_refuses_only_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    set_available(monkeypatch, build_bytes(SMALL))
    check_memory(SMALL)
    set_available(monkeypatch, build_bytes(SMALL) - 1)
    with pytest.raises(SpecError, match="2 GiB of memory, 1 GiB are available"):
        check_memory(SMALL)


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (ModelSpec(variant="large", alpha=1e6), "smaller --alpha"),
        (ModelSpec(variant="v2", alpha=1e6, include_top=False), "smaller --alpha"),
        (ModelSpec(variant="v2", height=100_000, width=100_000), "smaller --resolution"),
        (ModelSpec(variant="small", height=32, width=999_999_999), "smaller --resolution"),
        (ModelSpec(variant="v2", classes=10**400), "smaller --classes"),
    ],
)
def test_absurd_networks_are_refused_by_the_option_that_mends_it(spec: ModelSpec, option: str) -> None:
    with pytest.raises(SpecError, match=option):
        check_memory(spec)


@pytest.mark.parametrize(("variant", "fits", "too_wide"), [("v2", 15.0, 16.0), ("large", 11.0, 12.0)])
def test_refuses_what_an_onnx_file_cannot_hold(
    monkeypatch: pytest.MonkeyPatch, variant: str, fits: float, too_wide: float
) -> None:
    """float32 weights of 2 GiB and more: above 536,870,911 parameters, memory or not."""
    set_available(monkeypatch, HUGE)
    narrow, wide = (ModelSpec(variant=variant, alpha=alpha) for alpha in (fits, too_wide))  # type: ignore[arg-type]
    assert parameters(narrow) < 2**29 <= parameters(wide)
    check_memory(narrow)
    with pytest.raises(SpecError, match="an ONNX file holds less than 2 GiB; choose a smaller --alpha"):
        check_memory(wide)


def test_needs_grow_with_each_dimension() -> None:
    assert build_bytes(ModelSpec(variant="small", alpha=2.0)) > build_bytes(SMALL)
    assert build_bytes(ModelSpec(variant="small", height=448)) > build_bytes(SMALL)
    assert build_bytes(ModelSpec(variant="small", classes=5000)) > build_bytes(SMALL)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory in Linux's unit")
@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(variant="v2", alpha=4.0, height=64, width=64),
        ModelSpec(variant="large", height=448, width=448),
        ModelSpec(variant="large", height=None, width=None),
    ],
    ids=lambda spec: spec.slug,
)
def test_estimate_covers_a_real_build(spec: ModelSpec, tmp_path: Path) -> None:
    """Peak resident memory of a whole build: never above the estimate, never under half of it."""
    pytest.importorskip("tensorflow")
    script = (
        "import resource, pathlib, sys; from mbexport.pipeline import build; from mbexport.spec import ModelSpec;"
        f"build(ModelSpec(variant={spec.variant!r}, alpha={spec.alpha}, height={spec.height}, width={spec.width}),"
        "out=pathlib.Path(sys.argv[1]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    peak_bytes = int(answer.stdout.split()[-1])
    assert build_bytes(spec) / 2 < peak_bytes < build_bytes(spec)


def test_batch_that_cannot_be_run_is_refused() -> None:
    with pytest.raises(SpecError, match="--batch"):
        check_memory(SMALL, batch=10**9)
    check_memory(SMALL, batch=8)


def test_container_limit_counts(tmp_path: Path) -> None:
    from mbexport.memory import _available_bytes

    (tmp_path / "memory.max").write_text(f"{3 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2 * 2**30}\n")
    assert _available_bytes(tmp_path) == 2**30
    (tmp_path / "memory.max").write_text("max\n")
    assert _available_bytes(tmp_path) > 2**30
    assert _available_bytes(tmp_path / "absent") > 2**30
