"""What is tried of each variant: thread counts, callers, and a short list of engine options, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mbexport.bench.plan import Cell
from mbexport.runtimes import split_target
from mbexport.tuned import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.profile import Hardware, ThreadPlan
    from mbexport.tune.accuracy import Judged
    from mbexport.tune.variants import Variant
    from mbexport.tuned import Objective

Options = tuple[tuple[str, str], ...]

_NO_SPINNING: Options = (("session.intra_op.allow_spinning", "0"),)
"""Idle threads sleep instead of spinning: each call wakes them anew, but they leave the cores to others; where the
cores are shared, spinning threads wait for threads that are not running."""
_SMALL_BLOCKS: Options = (("session.dynamic_block_base", "4"),)
"""A layer's work is handed out in shrinking blocks instead of equal shares, so that a slower core holds up less."""
_UNPINNED: Options = (("ENABLE_CPU_PINNING", "NO"),)
"""The system may move threads to a core that is free, instead of waiting for the one that they are bound to."""
_BOTH_SIBLINGS: Options = (("ENABLE_HYPER_THREADING", "YES"),)
"""Threads may share a core where it runs two."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that may be timed."""

    variant: Variant
    threads: int
    callers: int
    batch: int
    options: Options = ()

    @property
    def without_options(self) -> Candidate:
        """The same with the usual options."""
        return replace(self, options=())

    @property
    def cell(self) -> Cell:
        """As the measuring process is told."""
        variant = self.variant
        return Cell(
            artifact=str(variant.artifact.path.absolute()),
            sha256=variant.artifact.sha256,
            target=variant.target,
            mode=variant.mode,
            threads=self.threads,
            batch=self.batch,
            scenario="single-stream" if self.callers == 1 else "concurrent",
            concurrency=self.callers,
            model=None if variant.is_own else variant.model,
            options=self.options,
        )

    @property
    def configuration(self) -> Configuration:
        """For the record."""
        manifest = self.variant.artifact.manifest
        return Configuration(
            artifact=manifest.slug,
            sha256=self.variant.artifact.sha256,
            model=self.variant.model,
            model_sha256=manifest.files[self.variant.model],
            runtime=self.variant.target,
            mode=self.variant.mode,
            threads=self.threads,
            callers=self.callers,
            batch=self.batch,
            options=dict(self.options),
        )


def first_candidates(
    judged: Sequence[Judged], objective: Objective, plan: ThreadPlan, threads: int | None
) -> list[Candidate]:
    """Each variant inside the limit with each number of threads and callers, the usual ones first; usual options.

    Args:
        judged: the variants.
        objective: more than one caller is tried for throughput alone.
        plan: how many threads are usual here, and the most.
        threads: the only number to try, or None.
    """
    found = []
    for each in judged:
        if each.check.inside:
            batch = each.variant.artifact.manifest.export.batch or 1
            for count in _thread_counts(each.variant.target, objective, plan, threads):
                found += [Candidate(each.variant, count, callers, batch) for callers in _callers(objective, count)]
    usual = threads or plan.threads
    return sorted(found, key=lambda one: (one.threads != usual, one.callers != 1))


def with_options(candidate: Candidate, hardware: Hardware) -> Iterator[Candidate]:
    """The candidate with each option that could matter to it, one at a time."""
    engine, device = split_target(candidate.variant.target)
    if device != "cpu":
        return
    several = candidate.threads > 1
    tried = {
        "ort": [_NO_SPINNING, _SMALL_BLOCKS] if several and candidate.callers < candidate.threads else [],
        "openvino": [_UNPINNED, *([_BOTH_SIBLINGS] if hardware.logical_cores > hardware.physical_cores else [])],
    }
    for options in tried.get(engine, []):
        yield Candidate(candidate.variant, candidate.threads, candidate.callers, candidate.batch, options)


def _thread_counts(target: str, objective: Objective, plan: ThreadPlan, threads: int | None) -> list[int]:
    """Powers of two, the usual number and the most; for throughput no core is left idle, so only the last two.

    Other devices than the CPU have no threads to choose.
    """
    if threads is not None:
        return [threads]
    if split_target(target)[1] != "cpu":
        return [plan.threads]
    if objective == "throughput":
        return sorted({plan.threads, plan.most})
    doubled = [2**power for power in range(plan.most.bit_length())]
    return sorted({*doubled, plan.threads, plan.most} & set(range(1, plan.most + 1)))


def _callers(objective: Objective, threads: int) -> list[int]:
    """Powers of two up to twice the threads, and as many as there are threads."""
    if objective != "throughput":
        return [1]
    doubled = [2**power for power in range((2 * threads).bit_length())]
    return sorted({*doubled, threads} & set(range(1, 2 * threads + 1)))
