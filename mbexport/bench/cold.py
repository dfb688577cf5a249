"""A process that answers once and ends: ``python -m mbexport.bench.cold``, a plan on stdin, its times on stdout."""

from __future__ import annotations

import sys
from pathlib import Path

from mbexport import child
from mbexport.bench.opening import open_cell
from mbexport.bench.plan import ColdAnswer, ColdPlan


def start(plan: ColdPlan) -> ColdAnswer:
    """Open the cell with what its engine kept, and answer once. Raises as :func:`open_cell` does."""
    opened = open_cell(plan.cell, plan.spawned_ns, Path(plan.kept))
    with opened.session:
        return ColdAnswer(start=opened.start)


def main() -> int:
    """Answer one plan; the exit code."""
    return child.answer(ColdPlan, start)


if __name__ == "__main__":
    sys.exit(main())
