"""Which rows a report speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from mbexport.analysis.machine import choose_machine
from mbexport.errors import InputError
from mbexport.hardware import detect
from mbexport.profile import LatencyProfile, Scenario
from mbexport.profiles import list_profiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mbexport.analysis.machine import Machine


def choose(folders: Sequence[Path], names: Sequence[str] = (), hardware: str | None = None) -> Machine:
    """One machine's rows in every scenario: of ``hardware``, else of this machine, else of the only one there is.

    Args:
        folders: where profiles may lie, the reader's own first: its rows go before the same ones of later folders.
        names: parts of artifacts' or machines' names; only profiles that have one of them. Empty means all.
        hardware: a machine's slug.

    Raises:
        InputError: nothing measured, nothing of that name, or several machines and no word on which.
        DocumentError: a damaged profile, or one of a newer release.
    """
    found = list_profiles(folders)
    for name in names if found else ():
        if not any(_has(profile, name) for profile in found.values()):
            raise InputError(f"no measured profile of {name} in {folders[0]} or shipped; see: mbexport profile show")
    chosen = {
        path: profile for path, profile in found.items() if not names or any(_has(profile, name) for name in names)
    }
    machine = choose_machine(chosen, hardware, detect(), get_args(Scenario))
    if not machine.cells:
        raise InputError(f"the profiles of {machine.hardware.slug} hold no rows; measure with: mbexport bench ARTIFACT")
    return machine


def _has(profile: LatencyProfile, name: str) -> bool:
    return name in profile.artifact or name in profile.hardware.slug
