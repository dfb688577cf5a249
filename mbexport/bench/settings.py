"""Which cells a bench has: every artifact with every target and setting."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.bench.plan import Cell, choose_batch, choose_threads
from mbexport.errors import InputError
from mbexport.profiles import same_machine, unlike_fields
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.profile import Hardware, LatencyProfile, Scenario, ThreadPlan
    from mbexport.quantities import Mode


@dataclass(frozen=True)
class Settings:
    """What is varied, and how long it may take."""

    threads: Sequence[int | None] = (None,)
    """For every engine alike; None means one per usable physical core."""
    batches: Sequence[int | None] = (None,)
    """Pictures per call; None means the artifact's own batch, or 1 where that is dynamic."""
    modes: Sequence[Mode] = ("parity", "production")
    """``parity`` pins float32, ``production`` keeps the engine's defaults."""
    concurrency: int = 1
    """Callers at once, which share the threads."""
    offline: bool = False
    """As many callers at once as the engine serves best."""
    budget_s: float | None = None
    """For all cells together; without it each takes what its percentiles need."""
    cold: bool = False
    """Whether to measure also how fast a process starts that finds what its engine kept of the model."""


def cells_of(artifacts: Sequence[Artifact], targets: Sequence[str], settings: Settings, plan: ThreadPlan) -> list[Cell]:
    """Each combination once, and an artifact once however often and by whatever paths it is named.

    Raises:
        InputError: nothing to measure, or a target, thread count, batch or concurrency that cannot be; or two networks
            that would share one profile.
    """
    names = dict.fromkeys(":".join(split_target(target)) for target in targets)
    if not artifacts or not names or not settings.modes:
        raise InputError("nothing to measure: name an artifact, at least one runtime, such as ort:cpu, and one mode")
    threads = [choose_threads(wanted, plan) for wanted in settings.threads]
    _check_concurrency(settings, plan)
    found = [
        Cell(
            artifact=str(artifact.path.absolute()),
            sha256=artifact.sha256,
            target=target,
            mode=mode,
            threads=count,
            batch=choose_batch(batch, artifact.manifest.export.batch),
            scenario=_scenario(settings),
            concurrency=settings.concurrency,
        )
        for artifact, count, batch, target, mode in itertools.product(
            _once(artifacts), threads, settings.batches, names, settings.modes
        )
    ]
    return list(dict.fromkeys(found))


def refuse_other_machines(stored: Mapping[Path, LatencyProfile], machine: Hardware) -> None:
    """Keep the rows of a machine that has the same slug but is another one.

    Args:
        stored: what the folder of that slug holds, by path.
        machine: what is to be measured.

    Raises:
        InputError: one of these profiles is of another machine.
    """
    for path, profile in stored.items():
        held = profile.hardware
        if not same_machine(held, machine):
            raise InputError(
                f"{path} is of another machine of this one's name ({held.cpu}, {held.physical_cores} cores, "
                f"{held.memory_bytes / 2**30:.1f} GiB; here {machine.memory_bytes / 2**30:.1f} GiB), which differs in "
                f"{', '.join(unlike_fields(held, machine))}; choose another --profiles DIR"
            )


def _once(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Each network once. Two builds under one name would overwrite each other's rows.

    Raises:
        InputError: there are two such builds.
    """
    found: dict[str, Artifact] = {}
    for artifact in artifacts:
        first = found.setdefault(artifact.manifest.slug, artifact)
        if first.sha256 != artifact.sha256:
            raise InputError(
                f"{first.path} and {artifact.path} are two builds of one name, {artifact.manifest.slug}, and so would "
                "share one profile; bench them apart, each with a --profiles DIR of its own"
            )
    return list(found.values())


def _scenario(settings: Settings) -> Scenario:
    if settings.offline:
        return "offline"
    return "single-stream" if settings.concurrency == 1 else "concurrent"


def _check_concurrency(settings: Settings, plan: ThreadPlan) -> None:
    most = 64 * plan.most
    if not 1 <= settings.concurrency <= most:
        raise InputError(f"concurrency must be 1 to {most} here, not {settings.concurrency}")
    if settings.offline and settings.concurrency != 1:
        raise InputError("offline lets the engine choose how many calls run at once; drop --concurrency or --offline")
