"""The Markdown page: docs/peers.md, and what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer_bench import bars
from peer_bench.cells import RUNTIMES, candidates_of, ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mbexport.profile import Hardware
    from peer_bench.bars import BarResult
    from peer_bench.cells import Candidate
    from peer_bench.ratios import Group, Ratio
    from peer_bench.records import CellPlan, Plan

METHOD = """\
Every candidate is timed in fresh processes, {replicates} rounds of each network and thread count. Within a round all
candidates take one turn each, in an order drawn anew, so that what drifts in the machine drifts through all alike. A
process first checks its answers to four pictures against Keras's float32 logits (SQNR of at least {limit:.0f} dB, and
float32 read back from the engine; else the candidate is marked wrong and not timed), warms up until windowed medians
settle, then runs for {min_time_s:g} s and {min_samples} runs at least, the four pictures in turn. 224x224, batch 1,
float32 pinned, the same thread count for every engine (ONNX Runtime intra-op, inter-op 1; OpenVINO one stream, latency
hint, static batch; LiteRT's XNNPACK). Each ONNX file keeps the batch of its own export: mbexport's and Keras's are
dynamic, torch's is static.

p50 is over all samples pooled. A ratio is the median over rounds of one candidate's p50 over another's in the same
round; its interval is the sign test's exact 95%, or the whole range below six rounds (5 rounds: 93.75%). "Met" speaks
of that median, "met within noise" of the interval's better end. The best peer is the one with the best median ratio.

All networks have mbexport's seeded, calibrated weights. Keras's ONNX export depends on them: where a squeeze-excite
gate's bias is zero, as in a freshly made network (`weights=None`), tf2onnx's transpose optimizer dies and leaves every
Transpose; where none is, as in a trained network, it does not. Both are shown ("a zero bias" is the last gate's).
timm's networks have the same weights and take what a torch user feeds (-1..1, channels first, logits out), so they do
no Transpose, no Rescaling and no softmax. timm's `mobilenetv2_100` pads symmetrically: another network of the same
cost, checked against torch's own answers. LiteRT's copy of the picture into its tensor is not timed."""


def page(plan: Plan, groups: Sequence[Group], dates: Iterable[str], *, limit_db: float, min_samples: int) -> str:
    method = METHOD.format(
        replicates=plan.replicates, limit=limit_db, min_time_s=plan.min_time_s, min_samples=min_samples
    )
    parts = [
        "# Against the peers (`python benchmarks/peers.py`)",
        "Written by the program; do not edit.",
        _context(plan, groups, dates),
        "## Method",
        method,
        "## Bars",
        *_bars(groups),
        "## All figures",
        *(part for slug, cell in plan.cells.items() for part in _cell(slug, cell, groups)),
    ]
    return "\n\n".join(parts) + "\n"


def _context(plan: Plan, groups: Sequence[Group], dates: Iterable[str]) -> str:
    days = sorted(set(dates))
    when = "nothing measured" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(plan.versions.items()))
    busiest = max((group.others_share for group in groups), default=0.0)
    return (
        f"{machine(plan.hardware)}; {when}. {versions}. While measuring, other processes took at most {busiest:.0%} "
        "of the machine (median over the processes of a network and thread count)."
    )


def machine(hardware: Hardware) -> str:
    """One line on the CPU: name, cores, profile slug, the instruction sets that decide."""
    kind = ", virtual" if hardware.virtual_machine else ""
    sets = ", ".join(name for name in hardware.instruction_sets if name.startswith(("avx512", "amx", "avx2", "neon")))
    return f"{hardware.cpu}, {hardware.physical_cores} cores{kind} ({hardware.slug}; {sets or hardware.architecture})"


def _bars(groups: Sequence[Group]) -> Iterator[str]:
    yield from _bar("mbexport's p50 over the best peer's on the same runtime: at most 1.00", bars.best_peer(groups))
    yield from _bar("mbexport's p50 on its better runtime over LiteRT's: at most 1.05", bars.litert(groups))
    limits = ", ".join(f"{bar:g} on {RUNTIMES[engine]}" for engine, bar in bars.KERAS_BARS.items())
    yield from _bar(f"p50 of Keras's own export over mbexport's: at least {limits}", bars.keras_export(groups))


def _bar(title: str, results: Iterable[BarResult]) -> Iterator[str]:
    rows = list(results)
    yield f"### {title}"
    if not rows:
        yield "Not in question for the networks measured."
        return
    verdicts = [row.verdict or "not measured" for row in rows]
    counts = {name: verdicts.count(name) for name in ("met", "met within noise", "missed", "not measured")}
    yield ", ".join(f"{name} {count}" for name, count in counts.items() if count) + "."
    lines = ["| network | threads | runtime | against | ratio | bar |", "|---|---:|---|---|---|---|"]
    for row, verdict in zip(rows, verdicts, strict=True):
        lines.append(f"| {row.cell} | {row.threads} | {row.runtime} | {row.against} | {shown(row.ratio)} | {verdict} |")
    yield "\n".join(lines)


def _cell(slug: str, cell: CellPlan, groups: Sequence[Group]) -> Iterator[str]:
    mine = [group for group in groups if group.cell.slug == slug]
    yield f"### {slug}"
    head = "".join(f" {group.threads} thr. p50 ms | over mbexport |" for group in mine)
    lines = [f"| runtime | file | nodes | Transposes |{head}", "|---|---|---:|---:|" + "---:|---|" * len(mine)]
    for candidate in candidates_of(mine[0].cell) if mine else ():
        file = cell.files.get(candidate.key)
        nodes, transposes = ("-", "-") if file is None or file.nodes is None else (file.nodes, file.transposes)
        figures = "".join(_figures(group, candidate) for group in mine)
        lines.append(f"| {RUNTIMES[candidate.engine]} | {candidate.label} | {nodes} | {transposes} |{figures}")
    yield "\n".join(lines)


def _figures(group: Group, candidate: Candidate) -> str:
    """p50 and ratio, or the reason why there are none. LiteRT is compared with mbexport's better runtime."""
    p50_s = group.p50_s.get(candidate.key)
    if p50_s is None:
        return f" - | {group.refused.get(candidate.key, 'not measured')} |"
    engine = bars.better_engine(group) if candidate.engine == "litert" else candidate.engine
    ratio = None if engine is None else group.ratio(candidate.key, ours(engine).key)
    return f" {p50_s * 1e3:.3f} | {'1' if candidate.step == 'mbexport' else shown(ratio)} |"


def shown(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
