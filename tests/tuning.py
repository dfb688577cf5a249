"""Measuring processes for tests of tune: each cell takes what a test says, without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import hardware
from mbexport.profile import ThreadPlan
from mbexport.samples import packed
from mbexport.tune import halving
from tests.measured import HARDWARE, answer, replicate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from mbexport.bench.plan import Cell, WorkerAnswer, WorkerPlan

THREADS = ThreadPlan(threads=2, most=2, reasons=["2 physical cores"])
FOLDER = "amd-epyc-f25m17-2c"


class Machine:
    """Stands for the measuring processes: a cell takes ``latency_s(cell, earlier processes of it)``."""

    def __init__(self, latency_s: Callable[[Cell, int], float]) -> None:
        self.latency_s = latency_s
        self.plans: list[WorkerPlan] = []
        self.precision: Callable[[Cell], str] = lambda cell: "int8" if is_int8(cell) else "f32"

    def __call__(self, plan: WorkerPlan) -> WorkerAnswer:
        before = sum(other.cell == plan.cell for other in self.plans)
        self.plans.append(plan)
        sample_s = self.latency_s(plan.cell, before)
        measured = replicate([1], samples=packed([round(sample_s * 1e9)] * 200))
        rate = plan.cell.concurrency * plan.cell.batch / sample_s
        return answer(
            [1],
            replicate=replicate([1], samples=measured.samples, throughput_per_s=rate),
            precision=self.precision(plan.cell),
            engine_options={"threads": str(plan.cell.threads)},
        )

    def cells(self) -> list[Cell]:
        return [plan.cell for plan in self.plans]


def on_machine(monkeypatch: pytest.MonkeyPatch, latency_s: Callable[[Cell, int], float]) -> Machine:
    made = Machine(latency_s)
    monkeypatch.setattr(halving, "run_worker", made)
    monkeypatch.setattr(hardware, "detect", lambda: HARDWARE)
    monkeypatch.setattr(hardware, "usable_threads", lambda: THREADS)
    return made


def is_int8(cell: Cell) -> bool:
    return cell.artifact.endswith("_int8")


def photographs(folder: Path, count: int) -> Path:
    """``count`` pictures of each of the four colours, each a little lighter than the last."""
    from PIL import Image

    from tests.colours import COLOURS

    for number, colour in enumerate(COLOURS.values()):
        (folder / f"c{number}").mkdir(parents=True)
        for at in range(count):
            lighter = tuple(min(255, shade + at) for shade in colour)
            Image.new("RGB", (40, 40), lighter).save(folder / f"c{number}" / f"{at}.png")
    return folder
