"""Medians and their ratios, paired within rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.bench import statistics
from peer_bench.records import Refused, Timed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peer_bench.cells import Cell
    from peer_bench.records import Round


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of the ratio of two candidates' medians, and its interval."""

    median: float
    low: float
    high: float


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Divide round by round, so that what the machine does to a whole round cancels.

    The interval is the exact one of the sign test, from order statistics: 95% from six rounds on; the whole range with
    fewer, which holds the median with probability 1 - 2^(1 - rounds).
    """
    quotients = [above / below for above, below in zip(numerators, denominators, strict=True)]
    low, high = statistics.median_interval(quotients)
    return Ratio(statistics.median(quotients), low, high)


@dataclass(frozen=True)
class Group:
    """One network at one thread count. Candidates without figures stand in ``refused``, with the reason."""

    cell: Cell
    threads: int
    medians_s: dict[str, list[float]]
    """Candidate key -> the p50 of each round's process."""
    p50_s: dict[str, float]
    """Candidate key -> the p50 of all its samples, pooled."""
    refused: dict[str, str]
    others_share: float
    """Median over processes of the share of the machine that other processes used."""

    def ratio(self, numerator: str, denominator: str) -> Ratio | None:
        if numerator not in self.medians_s or denominator not in self.medians_s:
            return None
        return paired_ratio(self.medians_s[numerator], self.medians_s[denominator])


def group_of(cell: Cell, threads: int, rounds: Sequence[Round], missing: Mapping[str, str]) -> Group:
    """Pool the rounds. A candidate that failed or answered wrongly in any round has no figures."""
    medians_s, p50_s, shares = {}, {}, []
    refused = {key: f"not measured: {why}" for key, why in missing.items()}
    for key in rounds[0].runs if rounds else ():
        runs = [turn.runs[key] for turn in rounds]
        bad = next((run for run in runs if isinstance(run, Refused)), None)
        if bad is not None:
            refused[key] = f"{'wrong' if bad.wrong else 'not measured'}: {bad.reason}"
            continue
        timed = [run for run in runs if isinstance(run, Timed)]
        samples_s = [[sample * 1e-9 for sample in run.samples_ns] for run in timed]
        medians_s[key] = [statistics.median(samples) for samples in samples_s]
        p50_s[key] = statistics.median([sample for samples in samples_s for sample in samples])
        shares += [run.others_share or 0.0 for run in timed]
    return Group(cell, threads, medians_s, p50_s, refused, statistics.median(shares) if shares else 0.0)
