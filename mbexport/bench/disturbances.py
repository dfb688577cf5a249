"""What from outside disturbed a process while it measured, as far as the system tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport import thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.profile import Replicate


def disturbances(replicates: Sequence[Replicate]) -> Iterator[str]:
    """In words: CPU time that the hypervisor, other processes or a quota took, and a CPU that changed its pace."""
    steal = _worst(replicate.after.steal_share for replicate in replicates)
    if steal > thresholds.NOISY_STEAL_SHARE:
        yield f"the hypervisor took {steal:.1%} of the CPU time (limit {thresholds.NOISY_STEAL_SHARE:.0%})"
    others = _worst(replicate.after.others_share for replicate in replicates)
    if others > thresholds.NOISY_OTHERS_SHARE:
        yield f"other processes used {others:.0%} of the CPU time (limit {thresholds.NOISY_OTHERS_SHARE:.0%})"
    throttled = _worst(replicate.after.throttled_share for replicate in replicates)
    if throttled > thresholds.NOISY_THROTTLED_SHARE:
        limit = f"{thresholds.NOISY_THROTTLED_SHARE:.0%}"
        yield f"the CPU quota held the process back for {throttled:.0%} of the time (limit {limit})"
    change = _worst(_frequency_change(replicate) for replicate in replicates)
    if change > thresholds.NOISY_FREQUENCY_SHARE:
        limit = f"{thresholds.NOISY_FREQUENCY_SHARE:.0%}"
        yield f"the CPU's frequency changed by {change:.0%} while measuring (limit {limit})"


def _frequency_change(replicate: Replicate) -> float | None:
    before, after = replicate.before.frequency_hz, replicate.after.frequency_hz
    return abs(after - before) / max(after, before) if before and after else None


def _worst(shares: Iterator[float | None]) -> float:
    return max((share for share in shares if share is not None), default=0.0)
