"""Artifacts -> a serving layout: proved first, then written whole or not at all."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mbexport import hardware, serde
from mbexport.bundle.evidence import profiles_of
from mbexport.bundle.layouts.network import network_of
from mbexport.bundle.make import prove, refuse_names
from mbexport.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mbexport.artifact import Artifact

Layout = Literal["triton", "ovms", "openvino-ir", "plain"]
_LISTED = ".mbexport.json"
"""Every other file of the layout with its sha256, so that a later layout may take its place, and damage shows."""
_SERVERS = ("triton", "ovms")
"""Whose layouts say how many threads and pictures at once."""


class LayoutReport(msgspec.Struct, frozen=True, kw_only=True):
    """A layout just written."""

    layout: Layout
    path: str
    files: list[str]
    """Their paths under ``path``."""
    measured_on: str | None
    """Slug of the machine whose profiles set threads and batches; None where the engines' defaults did, and for a
    layout that sets neither."""


def write_layout(
    artifacts: Sequence[Artifact],
    out: Path,
    layout: Layout,
    targets: Sequence[str],
    *,
    profiles: Sequence[Path] = (),
    machine: str | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> LayoutReport:
    """Validate the artifacts here, and write the folder that a server or an engine takes.

    Args:
        artifacts: to be served side by side.
        out: the folder; one that holds nothing but files of this layout is replaced.
        layout: which.
        targets: what to validate on.
        profiles: folders whose profiles of the artifacts say how many threads and pictures at once serve them best.
        machine: slug of the machine that will serve; this one by default, else the only one with such profiles.
        threads: for each engine while validating.
        progress: told what is being done.

    Raises:
        UnprovenError: an artifact fails its validation; nothing is written.
        InputError: no artifact, two of one name, or no profiles of the named machine.
        MissingPackageError: OpenVINO is not installed and the layout holds its files.
        OutputError: ``out`` holds something else, or cannot be written.
    """
    tell = progress or (lambda _message: None)
    slug, files = _planned(artifacts, out, layout, profiles, machine)
    for artifact in artifacts:
        prove(artifact, targets, threads, tell)
    tell(layout)
    return _written(out, layout, files, slug)


def write_proved(artifacts: Sequence[Artifact], out: Path, layout: Layout, *, profiles: Sequence[Path]) -> LayoutReport:
    """The same of artifacts that have passed their validation."""
    slug, files = _planned(artifacts, out, layout, profiles, None)
    return _written(out, layout, files, slug)


def _planned(
    artifacts: Sequence[Artifact], out: Path, layout: Layout, profiles: Sequence[Path], machine: str | None
) -> tuple[str | None, Mapping[str, bytes]]:
    """Whose profiles count, and the files."""
    refuse_names(artifacts)
    serde.refuse_unwritable(out.parent)
    found = [profiles_of(artifact, profiles) for artifact in artifacts]
    slug = _machine({name for each in found for name in each}, machine)
    networks = [
        network_of(artifact, [each[slug]] if slug in each else [])
        for artifact, each in zip(artifacts, found, strict=True)
    ]
    module = import_module(f"mbexport.bundle.layouts.{layout.replace('-', '_')}")
    files: dict[str, bytes] = module.files(networks)
    files[_LISTED] = serde.json_bytes({name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)})
    _refuse_foreign(out, files)
    return slug, files


def _written(out: Path, layout: Layout, files: Mapping[str, bytes], slug: str | None) -> LayoutReport:
    with serde.atomic_folder(out) as fresh, serde.writing(out):
        for name, data in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(data)
    return LayoutReport(
        layout=layout, path=str(out), files=sorted(files), measured_on=slug if layout in _SERVERS else None
    )


def _machine(measured: set[str], wanted: str | None) -> str | None:
    """The one that is named; else this one, else the only one."""
    if wanted is not None:
        if wanted not in measured:
            there = ", ".join(sorted(measured)) or "none"
            raise InputError(f"no profile of these artifacts is of {wanted}; measured on: {there}")
        return wanted
    own = hardware.detect().slug
    return own if own in measured else next(iter(measured)) if len(measured) == 1 else None


def _refuse_foreign(out: Path, files: Mapping[str, bytes]) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} is a {'link' if out.is_symlink() else 'file'}; choose another place for the folder")
    if Path.cwd().resolve().is_relative_to(out.resolve()):
        raise OutputError(f"{out} is the working folder, which cannot be replaced; name a folder in it")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()}
    strangers = sorted(there - set(files) - _earlier(out))
    if strangers:
        raise OutputError(f"{out} holds {strangers[0]}, which no layout put there; remove it or choose another place")


def _earlier(out: Path) -> set[str]:
    """The files of the layout that stands there."""
    try:
        return {_LISTED, *serde.decoded((out / _LISTED).read_bytes(), dict[str, str])}
    except (OSError, ValueError):  # none, or none of mbexport's: its files are strangers then
        return set()


def files_of(layout: Path) -> dict[str, Path]:
    """The files of a layout by their paths in it.

    Raises:
        InputError: the folder is no layout, or holds anything but its files as they were written.
    """
    try:
        listed = serde.decoded((layout / _LISTED).read_bytes(), dict[str, str])
    except (OSError, ValueError) as error:
        raise InputError(f"{layout} is neither a bundle nor the folder of an artifact or a layout") from error
    links = [path for path in layout.rglob("*") if path.is_symlink()]
    if links:
        raise InputError(f"{links[0]} is a link; a layout has none")
    there = {path.relative_to(layout).as_posix(): path for path in sorted(layout.rglob("*")) if not path.is_dir()}
    if set(there) != {*listed, _LISTED}:
        odd = min(set(there) ^ {*listed, _LISTED})
        raise InputError(
            f"{layout / odd} {'is no part of the layout' if odd in there else 'is not there'}; write it anew"
        )
    for name, sha256 in listed.items():
        if hashlib.sha256(there[name].read_bytes()).hexdigest() != sha256:
            raise InputError(f"{there[name]} is not as it was written; write the layout anew")
    return there
