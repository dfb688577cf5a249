"""What a bench measures of a tuned artifact: exactly the configurations that ``tune`` stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from mbexport import hardware
from mbexport.bench.plan import Cell, choose_threads
from mbexport.errors import InputError
from mbexport.profiles import profile_path, read_profile, same_machine
from mbexport.runtimes import resolve_targets
from mbexport.tune.variants import family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.profile import Hardware, LatencyProfile
    from mbexport.tuned import Configuration


def tuned_cells(artifacts: Sequence[Artifact], profiles: Path) -> tuple[list[Artifact], list[Cell]]:
    """The stored configurations of each float32 artifact on this machine, and the artifacts that they run.

    Of each objective it is the one with the strictest accuracy limit of those whose files lie here.

    Raises:
        DocumentError: the stored profile is damaged or of a newer schema version.
        InputError: there is none for this machine, or it is of another model.onnx or model file than lies here now.
        MissingError: the runtime is not here any more.
    """
    machine = hardware.detect()
    found = [pair for artifact in artifacts for pair in _of(artifact, profiles, machine)]
    resolve_targets([cell.target for _, cell in found])
    plan = hardware.usable_threads()
    for _, cell in found:
        choose_threads(cell.threads, plan)
    return list({each.path: each for each, _ in found}.values()), list(dict.fromkeys(cell for _, cell in found))


def _of(artifact: Artifact, profiles: Path, machine: Hardware) -> Iterator[tuple[Artifact, Cell]]:
    members, _ = family(artifact)
    path = profile_path(profiles, machine, artifact.manifest.slug)
    profile = read_profile(path) if path.is_file() else None
    if profile is None or not profile.tuned:
        _refuse(artifact, f"{profiles} holds no tuned configuration of {artifact.manifest.slug} for this machine")
    _check(artifact, path, profile, machine)
    usable: dict[str, tuple[Artifact, Cell]] = {}
    for tuned in profile.tuned:  # of each objective the strictest limit first
        pair = _pair(members, tuned.configuration)
        if pair is not None:
            usable.setdefault(tuned.objective, pair)
    if not usable:
        wanted = profile.tuned[0].configuration
        _refuse(
            artifact,
            f"the tuned configuration runs {wanted.model} of {wanted.artifact} (sha256 {wanted.model_sha256[:12]}...), "
            f"which does not lie beside {artifact.path} any more",
        )
    yield from usable.values()


def _check(artifact: Artifact, path: Path, profile: LatencyProfile, machine: Hardware) -> None:
    if not same_machine(profile.hardware, machine):
        _refuse(artifact, f"{path} is of another machine of this one's name")
    if profile.artifact_sha256 != artifact.sha256:
        then, now = profile.artifact_sha256[:12], artifact.sha256[:12]
        _refuse(artifact, f"{path} was tuned with another model.onnx (sha256 {then}..., now {now}...)")


def _pair(members: Sequence[Artifact], wanted: Configuration) -> tuple[Artifact, Cell] | None:
    """None where its file does not lie here any more."""
    for member in members:
        if member.sha256 == wanted.sha256 and member.manifest.files.get(wanted.model) == wanted.model_sha256:
            return member, _cell(member, wanted)
    return None


def _cell(member: Artifact, wanted: Configuration) -> Cell:
    is_own = member.model_path(wanted.runtime).name == wanted.model
    return Cell(
        artifact=str(member.path.absolute()),
        sha256=member.sha256,
        target=wanted.runtime,
        mode=wanted.mode,
        threads=wanted.threads,
        batch=wanted.batch,
        scenario="single-stream" if wanted.callers == 1 else "concurrent",
        concurrency=wanted.callers,
        model=None if is_own else wanted.model,
        options=tuple(sorted(wanted.options.items())),
    )


def _refuse(artifact: Artifact, why: str) -> NoReturn:
    raise InputError(f"{why}; find one with: mbexport tune {artifact.path}")
