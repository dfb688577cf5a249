"""Profile files: ``<folder>/<hardware-slug>/<artifact-slug>.json``, read, merged and written whole.

``<folder>/published/`` holds figures out of documents instead; no hardware slug can be that word.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from mbexport.errors import DocumentError, InputError
from mbexport.profile import PUBLISHED_SCHEMA_VERSION, SCHEMA_VERSION, LatencyProfile, PublishedProfile
from mbexport.profile_upgrades import UPGRADES
from mbexport.samples import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mbexport.profile import Hardware, Replicate
    from mbexport.tuned import TunedConfiguration

if sys.platform != "win32":
    import fcntl

PUBLISHED = "published"
LONGEST_SAMPLE_NS = 3_600 * 10**9
"""An hour: no call that anyone measures takes as long."""
_MEMORY_TOLERANCE = 0.1
"""The memory that a kernel reports moves from boot to boot; machines that differ hold half as much again or more."""


def profile_path(profiles: Path, hardware: Hardware, artifact_slug: str) -> Path:
    """Where the profile of an artifact on a machine lies.

    Raises:
        InputError: the slug is no plain file name, so it would lead out of the folder.
    """
    if Path(artifact_slug).name != artifact_slug or artifact_slug in {"", ".."}:
        raise InputError(f"an artifact's slug must be a plain name, not {artifact_slug!r}; build the artifact again")
    return profiles / hardware.slug / f"{artifact_slug}.json"


def shipped_profiles_dir() -> Path:
    """The project's own profiles: ``mbexport/_profiles`` in an installed wheel, ``profiles/`` in a source tree."""
    package = Path(__file__).parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def read_profile(path: Path) -> LatencyProfile:
    """Read one profile.

    Raises:
        DocumentError: not a profile, damaged, of a newer schema version, or of figures that cannot have been measured.
    """
    profile = serde.read_document(path, LatencyProfile, SCHEMA_VERSION, UPGRADES)
    for row in profile.measurements:
        for replicate in row.replicates:
            try:
                _check_samples(replicate)
            except ValueError as error:
                raise DocumentError(f"{path}: {row.runtime} {row.mode}: {error}; measure again") from error
    return profile


def _check_samples(replicate: Replicate) -> None:
    """What the types cannot say, since the samples are packed.

    Raises:
        ValueError: damaged, none, or a sample that no call can have taken.
    """
    for data in (replicate.samples, replicate.device_samples):
        if data is None:
            continue
        samples_ns = unpacked(data)
        if not samples_ns:
            raise ValueError("a process has no samples")
        shortest, longest = min(samples_ns), max(samples_ns)
        if shortest == 0 or longest > LONGEST_SAMPLE_NS:
            wrong_ns = longest if longest > LONGEST_SAMPLE_NS else shortest
            raise ValueError(f"a call takes 1 ns to an hour, not {wrong_ns} ns")


def write_profile(path: Path, profile: LatencyProfile) -> None:
    """Write one profile whole or not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    serde.write_atomic(path, serde.json_bytes(profile))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other benches out of a machine's folder, made when needed, while a profile is read, merged and written.

    The lock is on the folder itself, so no lock file stays; Windows and file systems that know no such lock go without.

    Raises:
        OutputError: the folder cannot be made.
    """
    with serde.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_folder(folder: Path) -> dict[Path, LatencyProfile]:
    """The profiles of one machine's folder, by path; none where there is no such folder.

    Raises:
        DocumentError: one of them is damaged or of a newer schema version.
    """
    return {path: read_profile(path) for path in sorted(folder.glob("*.json"))}


def list_profiles(folders: Iterable[Path]) -> dict[Path, LatencyProfile]:
    """Every measured profile under the folders, by path; folders that are not there hold none, and none is read twice.

    Raises:
        DocumentError: one of them is damaged or of a newer schema version.
    """
    machines = [machine for top in _once(folders) for machine in sorted(top.glob("*/")) if machine.name != PUBLISHED]
    return {path: profile for machine in machines for path, profile in read_folder(machine).items()}


def list_published(folders: Iterable[Path]) -> dict[Path, PublishedProfile]:
    """Every profile under the folders that was published and not measured, by path; none is read twice.

    Raises:
        DocumentError: one of them is damaged or of a newer schema version.
    """
    paths = [path for top in _once(folders) for path in sorted((top / PUBLISHED).glob("*.json"))]
    return {path: serde.read_document(path, PublishedProfile, PUBLISHED_SCHEMA_VERSION) for path in paths}


def refuse_misnamed(folder: Path, *, may_be_absent: bool = False) -> None:
    """Find out whether a folder can be what :func:`list_profiles` looks for; an empty one can.

    Raises:
        InputError: it is not there, or it holds the profiles themselves: then it is one machine's.
    """
    try:
        if not folder.is_dir():
            if may_be_absent and not folder.exists():
                return
            raise InputError(f"no folder {folder}; name a folder of machines' folders, as mbexport bench makes it")
        if any(folder.glob("*.json")) and not any(folder.glob("*/*.json")):
            above = folder.resolve().parent
            raise InputError(f"{folder} holds files but no machine's folder; is it one itself? Try --profiles {above}")
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _once(folders: Iterable[Path]) -> list[Path]:
    """The folders without those that are another name of an earlier one."""
    tops: dict[Path, Path] = {}
    for folder in folders:
        tops.setdefault(folder.resolve(), folder)
    return list(tops.values())


def merge(stored: LatencyProfile | None, fresh: LatencyProfile) -> tuple[LatencyProfile, str | None]:
    """``fresh`` put into ``stored``: rows with the same key are replaced, other rows stay. Of the tuned configurations
    of one objective and accuracy limit the one found later stays; they stand by objective, the strictest limit first.

    Rows of another network or another machine cannot stand in one profile: then ``fresh`` replaces the whole, and
    the second value says why.
    """
    if stored is None:
        return fresh, None
    if stored.artifact_sha256 != fresh.artifact_sha256:
        old, new = stored.artifact_sha256[:12], fresh.artifact_sha256[:12]
        return fresh, f"the stored profile was of another model.onnx (sha256 {old}..., now {new}...)"
    if not same_machine(stored.hardware, fresh.hardware):
        return fresh, "the stored profile was of another machine with the same name"
    rows = {row.key: row for row in (*stored.measurements, *fresh.measurements)}
    by_date = sorted((*stored.tuned, *fresh.tuned), key=lambda tuned: tuned.tuned_on)
    tuned = {tuned_key(each): each for each in by_date}
    return msgspec.structs.replace(
        fresh, measurements=[rows[key] for key in sorted(rows)], tuned=[tuned[key] for key in sorted(tuned)]
    ), None


def tuned_key(tuned: TunedConfiguration) -> tuple[str, float]:
    """Tuned configurations of one artifact with the same key replace each other: what was found under a looser limit
    is no answer under a stricter one.
    """
    return tuned.objective, tuned.max_drop


def same_machine(one: Hardware, other: Hardware) -> bool:
    """Whether two descriptions fit one machine: equal but for a little memory."""
    alike = msgspec.structs.replace(one, memory_bytes=other.memory_bytes) == other
    return alike and math.isclose(one.memory_bytes, other.memory_bytes, rel_tol=_MEMORY_TOLERANCE)


def unlike_fields(one: Hardware, other: Hardware) -> list[str]:
    """The names of the fields in which two descriptions differ."""
    return [name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)]
