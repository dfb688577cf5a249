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
    """Say where nothing of a folder that was named stands behind an answer, and what it holds if not rows."""
    if profiles == DEFAULT or any(path.resolve().is_relative_to(profiles.resolve()) for path in used):
        return
    own.note(
        f"nothing of this is from {profiles}{_tuned_alone(profiles)}: the profiles are those shipped with mbexport"
    )


def _tuned_alone(profiles: Path) -> str:
    """In words, that a folder holds what ``tune`` found and nothing measured; else empty."""
    from mbexport.profiles import list_profiles

    found = list(list_profiles([profiles]).values())
    if not any(profile.tuned for profile in found) or any(profile.measurements for profile in found):
        return ""
    return ", which holds tuned configurations and no rows (measure them with: mbexport bench ARTIFACT --tuned)"
