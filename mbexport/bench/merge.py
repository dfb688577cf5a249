"""Profiles from elsewhere, put among those of one folder: of each setting what was measured or tuned last stays."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from mbexport import serde
from mbexport.bench.merged import Counts, MergedProfile, MergeReport, merged_profile
from mbexport.bench.store import README
from mbexport.bench.table import table_text
from mbexport.errors import DocumentError, InputError
from mbexport.profiles import (
    list_profiles,
    locked,
    merge,
    profile_path,
    read_folder,
    read_profile,
    same_machine,
    tuned_key,
    unlike_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from mbexport.profile import Hardware, LatencyProfile, Measurement
    from mbexport.tuned import TunedConfiguration

    Key = tuple[str, str, int, int, str, int, str]


class _Source(NamedTuple):
    """A profile that was read, where it lay, and where it belongs."""

    path: Path
    profile: LatencyProfile
    target: Path

    @property
    def in_place(self) -> bool:
        return self.path.resolve() == self.target.resolve()


def merge_profiles(
    sources: Iterable[Path], into: Path, *, progress: Callable[[str], None] | None = None
) -> MergeReport:
    """Put profiles into ``<into>/<hardware>/<artifact>.json``, and write the README.md of each machine's folder anew.

    Of rows with the same key the one measured later stays; on the same day a source's, and of two sources' that of the
    later source. The same holds for tuned configurations of one objective and accuracy limit. Everything is read and
    checked before anything is written; then one machine's folder after the other is locked and written, each file whole
    or not at all.

    Args:
        sources: each a profile, a machine's folder of profiles, or a folder that holds machines' folders. What already
            lies at its own place in ``into`` stays there, written in the present schema version.
        into: the folder of all machines' profiles; made when needed.
        progress: called with what is being done.

    Raises:
        InputError: a source holds no profile; or one is of another model.onnx or of another machine than the profile
            of the same name, or than its machine's folder.
        DocumentError: a profile is damaged or of a newer schema version, in a source or where it would be put.
        OutputError: ``into`` cannot be written to.
    """
    folders: dict[Path, list[_Source]] = {}
    for source in _read(sources, into):
        folders.setdefault(source.target.parent, []).append(source)
    for folder, found in folders.items():
        _planned(read_folder(folder), found)
        serde.refuse_unwritable(folder)
    merged: list[MergedProfile] = []
    for folder, found in folders.items():
        if progress is not None:
            progress(f"merge the profiles of {folder.name}")
        with locked(folder):
            merged += _write(folder, found)
    return MergeReport(
        into=str(into),
        written=[profile.path for profile in merged if profile.written],
        tables=[str(folder / README) for folder in folders],
        profiles=merged,
        **{name: sum(getattr(profile, name) for profile in merged) for name in Counts.__struct_fields__},
    )


def _read(sources: Iterable[Path], into: Path) -> list[_Source]:
    """All profiles of the sources; a file that is named twice counts once, where it is named last."""
    found: dict[Path, _Source] = {}
    for source in sources:
        for path, profile in _profiles_of(source).items():
            rows, tuned = _rows(path, profile), _tuned(path, profile)
            if not rows and not tuned:
                raise DocumentError(f"{path} holds no rows; measure again")
            real = path.resolve()
            found.pop(real, None)
            found[real] = _Source(path, profile, profile_path(into, profile.hardware, profile.artifact))
    return list(found.values())


def _profiles_of(source: Path) -> Mapping[Path, LatencyProfile]:
    try:
        is_folder, is_there = source.is_dir(), source.exists()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    if not is_there:
        raise InputError(f"{source} is neither a profile nor a folder of profiles; make one with: mbexport bench")
    found = read_folder(source) | list_profiles([source]) if is_folder else {source: read_profile(source)}
    if not found:
        raise InputError(f"no profiles in {source}; name a profile, a machine's folder, or a folder of such folders")
    return found


def _rows(path: Path, profile: LatencyProfile) -> dict[Key, Measurement]:
    """A profile's rows by their key.

    Raises:
        DocumentError: two rows have the same key, or a date is none.
    """
    rows = {row.key: row for row in profile.measurements}
    if len(rows) < len(profile.measurements):
        raise DocumentError(f"{path} holds two rows of one runtime and setting; remove one of them, or measure again")
    try:
        for row in rows.values():
            _day(row)
    except ValueError as error:
        raise DocumentError(f"{path}: measured_on must be a date such as 2026-01-31: {error}") from error
    return rows


def _tuned(path: Path, profile: LatencyProfile) -> dict[tuple[str, float], TunedConfiguration]:
    """A profile's tuned configurations by their key.

    Raises:
        DocumentError: a date is none.
    """
    try:
        for tuned in profile.tuned:
            _tuning_day(tuned)
    except ValueError as error:
        raise DocumentError(f"{path}: tuned_on must be a date such as 2026-01-31: {error}") from error
    return {tuned_key(tuned): tuned for tuned in profile.tuned}


def _day(row: Measurement) -> dt.date:
    return dt.date.fromisoformat(row.measured_on)


def _tuning_day(tuned: TunedConfiguration) -> dt.date:
    return dt.date.fromisoformat(tuned.tuned_on)


def _planned(stored: Mapping[Path, LatencyProfile], sources: Iterable[_Source]) -> dict[Path, LatencyProfile]:
    """All profiles that a machine's folder will hold, by path. Nothing is written.

    Raises:
        InputError: a source does not belong there.
        DocumentError: a stored profile holds two rows with the same key, or a date that is none.
    """
    planned = dict(stored)
    origins = {path: path for path in planned}
    for source in sources:
        held = planned.get(source.target)
        if held is not None and source.in_place:
            continue
        machines = {path: known.hardware for path, known in planned.items()}
        if machines and not any(same_machine(machine, source.profile.hardware) for machine in machines.values()):
            path = source.target if held is not None else next(iter(machines))
            _refuse(source, origins[path], _unlike(machines[path], source.profile.hardware))
        planned[source.target] = _joined(held, origins.get(source.target), source)
        origins[source.target] = source.path
    return planned


def _joined(held: LatencyProfile | None, origin: Path | None, source: _Source) -> LatencyProfile:
    """Both's rows, of each key the one measured later, and likewise what was tuned."""
    if held is None or origin is None:
        return source.profile
    rows, tuned = _rows(origin, held), _tuned(origin, held)
    taken = [row for row in source.profile.measurements if row.key not in rows or _day(row) >= _day(rows[row.key])]
    found = [
        each
        for each in source.profile.tuned
        if tuned_key(each) not in tuned or _tuning_day(each) >= _tuning_day(tuned[tuned_key(each)])
    ]
    joined, refused = merge(held, msgspec.structs.replace(source.profile, measurements=taken, tuned=found))
    if refused is not None:
        _refuse(source, origin, refused)
    return joined if taken or found else held


def _unlike(one: Hardware, other: Hardware) -> str:
    return f"two machines of the name {one.slug}, which differ in {', '.join(unlike_fields(one, other))}"


def _refuse(source: _Source, origin: Path, why: str) -> NoReturn:
    raise InputError(f"cannot merge {source.path} with {origin}: {why}; put it into another folder: --profiles DIR")


def _write(folder: Path, sources: Sequence[_Source]) -> list[MergedProfile]:
    """Write one machine's folder, which is locked; the table is made first, since it may fail."""
    before = read_folder(folder)
    planned = _planned(before, sources)
    table = table_text(planned)
    targets = dict.fromkeys(source.target for source in sources)
    merged = []
    for target in targets:
        data = serde.json_bytes(planned[target])
        changed = target not in before or target.read_bytes() != data
        if changed:
            serde.write_atomic(target, data)
        offered = [source.profile for source in sources if source.target == target and not source.in_place]
        merged.append(merged_profile(target, before.get(target), planned[target], offered, written=changed))
    serde.write_atomic(folder / README, table.encode())
    return merged
