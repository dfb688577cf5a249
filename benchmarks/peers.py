"""mbexport's files against every peer's, on ONNX Runtime, OpenVINO and LiteRT, in one run; writes docs/peers.md.

    pip install -r benchmarks/peers-requirements.txt && python benchmarks/peers.py

Seven networks at one and two threads. Peers: Keras's own exports, the ONNX one also after onnxslim and onnxsim, timm's
torch export, OpenVINO's conversion of the SavedModel, LiteRT. Files are made once and kept in ``--work``, and so are
the raw samples: a run that was interrupted goes on where it stopped, and ``--table-only`` writes the page again. A
peer whose package is not here is listed with the reason. Exits 0 whatever the outcome.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import hardware, serde
from mbexport.bench.plan import choose_threads
from mbexport.errors import InputError
from peer_bench.cells import CELLS, candidates_of, cell_of
from peer_bench.measure import measure_round, read_round, turns
from peer_bench.prepare import PACKAGES, prepare, version_of
from peer_bench.ratios import group_of
from peer_bench.records import CellPlan, Plan
from peer_bench.report import page
from peer_bench.worker import LIMIT_DB, MIN_SAMPLES

if TYPE_CHECKING:
    from peer_bench.cells import Cell

ROOT = Path(__file__).parents[1]
ENGINE_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "openvino", "ai-edge-litert", "numpy", "mbexport")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "peers", help="files and raw samples")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "peers.md", help="the page to write")
    parser.add_argument("--cells", nargs="+", choices=[cell.slug for cell in CELLS], help="all seven")
    parser.add_argument("--threads", nargs="+", type=int, help="1 and 2, where the machine has two cores")
    parser.add_argument("--replicates", type=int, default=6, help="rounds; 6 are the fewest with a 95%% interval")
    parser.add_argument("--min-time-s", type=float, default=0.5, help="of measuring, in each process")
    parser.add_argument("--table-only", action="store_true", help="the page from the samples in --work")
    parsed = parser.parse_args()
    usable = hardware.usable_threads()
    try:
        parsed.threads = [
            choose_threads(count, usable) for count in parsed.threads or range(1, min(2, usable.most) + 1)
        ]
    except InputError as error:
        parser.error(str(error))
    parsed.work = parsed.work.absolute()
    return parsed


def plan_run(work: Path, options: argparse.Namespace) -> Plan:
    cells = [cell for cell in CELLS if options.cells is None or cell.slug in options.cells]
    packages = {name for names in PACKAGES.values() for name in names} | set(ENGINE_PACKAGES)
    versions = {name: version_of(name) for name in sorted(packages)}
    plan = Plan(
        cells={cell.slug: prepare_cell(work, cell) for cell in cells},
        threads=options.threads,
        replicates=options.replicates,
        min_time_s=options.min_time_s,
        hardware=hardware.detect(),
        versions={name: version for name, version in versions.items() if version is not None},
    )
    serde.write_atomic(work / "plan.json", serde.json_bytes(plan))
    return plan


def prepare_cell(work: Path, cell: Cell) -> CellPlan:
    files, missing = {}, {}
    wanted = candidates_of(cell)
    for step in PACKAGES:
        candidates = [candidate for candidate in wanted if candidate.step == step]
        if not candidates:
            continue
        tell(f"prepare {cell.slug} {step}")
        made = prepare(work, cell.slug, step)
        for candidate in candidates:
            if isinstance(made, str):
                missing[candidate.key] = made
            else:
                files[candidate.key] = made.files[candidate.engine]
    return CellPlan(files=files, missing=missing)


def measure_all(work: Path, plan: Plan) -> None:
    todo = [turn for turn in turns(plan) if read_round(work, plan, turn) is None]
    start = time.perf_counter()
    for done, turn in enumerate(todo):
        left_s = (time.perf_counter() - start) / done * (len(todo) - done) if done else None
        remaining = "" if left_s is None else f", about {left_s / 60:.0f} min left"
        replicate, slug, threads = turn
        tell(f"round {done + 1} of {len(todo)}: {slug}, {threads} threads, replicate {replicate + 1}{remaining}")
        measure_round(work, plan, turn)


def write_page(work: Path, plan: Plan, docs: Path) -> str:
    rounds = [found for turn in turns(plan) if (found := read_round(work, plan, turn)) is not None]
    groups = []
    for slug, cell in plan.cells.items():
        for threads in plan.threads:
            mine = [turn for turn in rounds if (turn.cell, turn.threads) == (slug, threads)]
            groups.append(group_of(cell_of(slug), threads, mine, cell.missing))
    dates = [turn.measured_on for turn in rounds]
    text = page(plan, groups, dates, limit_db=LIMIT_DB, min_samples=MIN_SAMPLES)
    serde.write_atomic(docs, text.encode())
    return text


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    options = arguments()
    work = options.work
    if options.table_only:
        plan = msgspec.json.decode((work / "plan.json").read_bytes(), type=Plan)
    else:
        plan = plan_run(work, options)
        measure_all(work, plan)
    print(write_page(work, plan, options.docs))


if __name__ == "__main__":
    main()
