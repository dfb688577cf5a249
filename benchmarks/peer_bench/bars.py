"""The bars that mbexport is held to, and whether it met them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peer_bench.cells import CANDIDATES, RUNTIMES, Engine, ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peer_bench.ratios import Group, Ratio

BEST_PEER_BAR = 1.0
"""mbexport's p50 over the best peer's on the same runtime, at most."""
LITERT_BAR = 1.05
"""mbexport's p50 on its better runtime over LiteRT's, at most."""
KERAS_BARS: dict[Engine, float] = {"ort": 1.2, "openvino": 2.8}
"""p50 of Keras's own export over mbexport's, at least, for the networks with gates."""
KERAS_STEPS = {"keras_onnx": "trained-like weights", "keras_fresh": "a zero bias"}

Verdict = Literal["met", "met within noise", "missed"]


@dataclass(frozen=True)
class BarResult:
    """One bar for one network, thread count and runtime; no ``ratio`` and ``verdict`` where nothing was measured."""

    cell: str
    threads: int
    runtime: str
    against: str
    ratio: Ratio | None
    verdict: Verdict | None


def at_most(ratio: Ratio, bar: float) -> Verdict:
    if ratio.median <= bar:
        return "met"
    return "met within noise" if ratio.low <= bar else "missed"


def at_least(ratio: Ratio, bar: float) -> Verdict:
    if ratio.median >= bar:
        return "met"
    return "met within noise" if ratio.high >= bar else "missed"


def best_peer(groups: Sequence[Group]) -> Iterator[BarResult]:
    """How mbexport stands to the fastest peer of each runtime: the one with the smallest median ratio."""
    for group in groups:
        for engine in KERAS_BARS:
            peers = [item for item in CANDIDATES if item.engine == engine and item.step != "mbexport"]
            ratios = {peer.label: group.ratio(ours(engine).key, peer.key) for peer in peers}
            measured = {label: ratio for label, ratio in ratios.items() if ratio is not None}
            if not measured:
                yield BarResult(group.cell.slug, group.threads, RUNTIMES[engine], "no peer measured", None, None)
                continue
            label, ratio = max(measured.items(), key=lambda item: item[1].median)
            verdict = at_most(ratio, BEST_PEER_BAR)
            yield BarResult(group.cell.slug, group.threads, RUNTIMES[engine], label, ratio, verdict)


def litert(groups: Sequence[Group]) -> Iterator[BarResult]:
    """How mbexport on its better runtime stands to LiteRT."""
    peer = next(item for item in CANDIDATES if item.engine == "litert")
    for group in groups:
        engine = better_engine(group)
        ratio = None if engine is None else group.ratio(ours(engine).key, peer.key)
        runtime = "-" if engine is None else RUNTIMES[engine]
        verdict = None if ratio is None else at_most(ratio, LITERT_BAR)
        yield BarResult(group.cell.slug, group.threads, runtime, peer.label, ratio, verdict)


def keras_export(groups: Sequence[Group]) -> Iterator[BarResult]:
    """Keras's own export over mbexport: with trained-like weights, and with a bias of zeros as in a fresh network."""
    for group in groups:
        if not group.cell.has_gates:
            continue
        for engine, bar in KERAS_BARS.items():
            for step, weights in KERAS_STEPS.items():
                ratio = group.ratio(f"{engine}/{step}", ours(engine).key)
                verdict = None if ratio is None else at_least(ratio, bar)
                yield BarResult(group.cell.slug, group.threads, RUNTIMES[engine], weights, ratio, verdict)


def better_engine(group: Group) -> Engine | None:
    """The runtime on which mbexport's file is faster; None where neither was measured."""
    here = [engine for engine in KERAS_BARS if ours(engine).key in group.p50_s]
    return min(here, key=lambda engine: group.p50_s[ours(engine).key], default=None)
