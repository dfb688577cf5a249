"""The folders that a question about profiles is asked of: the user's own, and the one that travels with mbexport."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbexport_cli.screen import Screen

DEFAULT = Path("profiles")
"""Made by the first bench, so it may be absent."""


def folders(profiles: Path) -> list[Path]:
    """``profiles`` and the shipped ones.

    Raises:
        InputError: ``profiles`` is not there, or is the folder of one machine.
    """
    from mbexport.profiles import refuse_misnamed, shipped_profiles_dir

    refuse_misnamed(profiles, may_be_absent=profiles == DEFAULT)
    return [profiles, shipped_profiles_dir()]


def note_unused(own: "Screen", profiles: Path, used: Iterable[Path]) -> None:
    """Say where nothing of a folder that was named stands behind an answer."""
    if profiles != DEFAULT and not any(path.resolve().is_relative_to(profiles.resolve()) for path in used):
        own.note(f"nothing of this is from {profiles}: the profiles are those shipped with mbexport")
