"""Find the fastest configuration of an artifact on this machine that stays inside an accuracy limit, and store it."""

from __future__ import annotations

import datetime as dt
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import hardware, serde
from mbexport.bench.plan import choose_threads
from mbexport.bench.settings import refuse_other_machines
from mbexport.errors import InputError
from mbexport.predict import FailedPicture
from mbexport.profile import LatencyProfile
from mbexport.profiles import locked, merge, profile_path, read_folder, read_profile, write_profile
from mbexport.thresholds import BENCH_LEAST_REPLICATES
from mbexport.tune.accuracy import judge_all
from mbexport.tune.choice import trials_of
from mbexport.tune.halving import Deadline, Tournament
from mbexport.tune.rungs import play
from mbexport.tune.variants import family, variants_of
from mbexport.tune.yardstick import SqnrYardstick, yardstick
from mbexport.tuned import Objective, TunedConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.artifact import Artifact
    from mbexport.profile import Hardware
    from mbexport.tune.accuracy import Accuracies
    from mbexport.tune.choice import Choice

    Tell = Callable[[str], None]

USUAL_DROP = 0.005
_ACCURACY = 0.25
"""Share of the budget after which judging accuracy should be over."""
_PROCESS_S = 1.3
"""What a process of the first rung takes, until one has shown it."""


@dataclass(frozen=True)
class TuneSettings:
    """What is asked."""

    objective: Objective = "p50"
    max_drop: float | None = None
    """Of top-1, as a share of 1; None means :data:`USUAL_DROP`. A note says where one that was given is not applied."""
    threads: int | None = None
    """The only number to try; None means all that this process may use."""
    budget_s: float = 300.0

    @property
    def limit(self) -> float:
        """Of what top-1 may lose, as a share of 1."""
        return USUAL_DROP if self.max_drop is None else self.max_drop


class TuneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``tune`` found; the names are the keys of the JSON report."""

    artifact: str
    """The folder of the float32 artifact."""
    path: str
    """The folder of the configuration's artifact."""
    profile: str
    """Where it is stored."""
    tuned: TunedConfiguration
    notes: list[str]
    """How accuracy was judged, and what was left out."""
    failed: list[FailedPicture]
    replaced: str | None
    """Why the stored profile's rows were dropped, where they were."""
    seconds: float


def tune(
    artifact: Artifact,
    targets: Sequence[str],
    settings: TuneSettings | None = None,
    *,
    images: Path | None = None,
    profiles: Path = Path("profiles"),
    tell: Tell | None = None,
) -> TuneReport:
    """Judge every precision's accuracy once, then time by successive halving; the result goes into this machine's
    profile of the artifact, whose other contents stay. Nothing is written before the end.

    Args:
        artifact: a checked one in float32; those of narrower precision beside it are tried too.
        targets: targets that are here; see :func:`mbexport.runtimes.resolve_targets`.
        settings: by what to choose, and how long it may take.
        images: labelled or unlabelled pictures; None judges by numbers, and int8 and f16 files of trained weights not
            at all.
        profiles: the folder of all machines' profiles; made when needed.
        tell: called with what is being done.

    Raises:
        DocumentError: a stored profile of this machine is damaged or of a newer schema version.
        ArtifactError: the artifact's stored reference cannot be read, or proves nothing.
        EngineError: no runtime runs the float32 model.
        InputError: not in float32, or pictures, threads or a budget that cannot be or was too small to decide.
        MissingError: an engine or a device is not here.
        OutputError: ``profiles`` cannot be written to.
    """
    start = time.monotonic()
    settings, tell = settings or TuneSettings(), tell or (lambda _message: None)
    plan = hardware.usable_threads()
    if settings.threads is not None:
        choose_threads(settings.threads, plan)
    deadline = Deadline(settings.budget_s)
    machine = hardware.detect()
    path = profile_path(profiles, machine, artifact.manifest.slug)
    serde.refuse_unwritable(path.parent)
    refuse_other_machines(read_folder(path.parent), machine)
    artifacts, notes = family(artifact)
    cores = settings.threads or plan.threads
    _refuse_small(settings, len(variants_of(artifacts, targets)))
    tell("look at the pictures" if images else "work out bf16's own noise")
    stick = yardstick(artifact, artifacts[1:], images, settings.limit, cores)
    if settings.max_drop is not None and isinstance(stick, SqnrYardstick):
        notes.append("--max-drop was not applied: it is of top-1, and SQNR judged")
    variants = variants_of(artifacts if stick.judges_files else [artifact], targets)
    accuracies = judge_all(variants, stick, cores, deadline.left_s(_ACCURACY), tell)
    games = Tournament(settings.objective, deadline, tell)
    choice = play(games, accuracies.judged, plan, machine, settings.threads)
    tuned = _tuned(choice, accuracies, settings)
    tell("keep what was found")  # an interrupt that an import swallowed ends here
    replaced = _store(path, artifact, machine, tuned)
    return TuneReport(
        artifact=str(artifact.path),
        path=str(choice.best.variant.artifact.path),
        profile=str(path),
        tuned=tuned,
        notes=[*notes, *stick.notes, *accuracies.notes, *choice.notes],
        failed=stick.failed,
        replaced=replaced,
        seconds=time.monotonic() - start,
    )


def _refuse_small(settings: TuneSettings, variants: int) -> None:
    """Raises:
    InputError: the budget could not even time every variant once and the last ones often enough.
    """
    least_s = (variants + 4 * BENCH_LEAST_REPLICATES) * _PROCESS_S / (1 - _ACCURACY)
    if settings.budget_s < least_s:
        raise InputError(
            f"the budget of {settings.budget_s:g} s is too small for {variants} variants; give at least "
            f"{math.ceil(least_s)}s, or fewer runtimes (--runtime)"
        )


def _tuned(choice: Choice, accuracies: Accuracies, settings: TuneSettings) -> TunedConfiguration:
    judged = {each.variant: each for each in accuracies.judged}
    best = judged[choice.best.variant]
    last = choice.games.timed[choice.best].answers[0]
    return TunedConfiguration(
        objective=settings.objective,
        max_drop=settings.limit,
        go=choice.go,
        configuration=choice.best.configuration,
        precision=last.precision,
        accuracy=best.check,
        over_float32=choice.over_float32,
        over_defaults=choice.over_defaults,
        engine_options=last.engine_options,
        versions=last.versions,
        tuned_on=dt.datetime.now(dt.UTC).date().isoformat(),
        trials=trials_of(choice, accuracies),
    )


def _store(path: Path, artifact: Artifact, machine: Hardware, tuned: TunedConfiguration) -> str | None:
    """Put it into the profile; why older contents were dropped, where they were."""
    manifest = artifact.manifest
    fresh = LatencyProfile(
        artifact=manifest.slug,
        artifact_sha256=artifact.sha256,
        spec=manifest.spec,
        precision=manifest.precision,
        hardware=machine,
        measurements=[],
        tuned=[tuned],
    )
    with locked(path.parent):
        merged, replaced = merge(read_profile(path) if path.exists() else None, fresh)
        write_profile(path, merged)
    return replaced
