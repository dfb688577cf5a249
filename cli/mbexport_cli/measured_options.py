"""The options that say which measured rows a question is about."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Profiles, choice

if TYPE_CHECKING:
    from mbexport.analysis.machine import Machine
    from mbexport.profile import Mode

_ROWS = "Measured rows"


@dataclass(frozen=True)
class MeasuredOptions:
    """Rows of one machine; None means any."""

    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as ort:cpu; repeatable. (default: any that was measured)",
            metavar="TARGET",
            rich_help_panel=_ROWS,
        ),
    ] = None
    threads: Annotated[
        int | None, typer.Option(help="(default: any that were measured)", metavar="N", rich_help_panel=_ROWS)
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(
            help="parity is float32, production the engine's own defaults. (default: both)",
            metavar="parity|production",
            rich_help_panel=_ROWS,
            autocompletion=lambda: ["parity", "production"],
        ),
    ] = None
    hardware: Annotated[
        str | None,
        typer.Option(
            help="The machine's folder among the profiles. (default: this machine's, else the only one)",
            metavar="SLUG",
            rich_help_panel=_ROWS,
        ),
    ] = None
    profiles: Profiles = Path("profiles")

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, not {self.threads}")

    def targets(self) -> list[str] | None:
        """The runtimes, each once, as profiles spell them; they need not be on this machine.

        Raises:
            InputError: an unknown engine.
        """
        from mbexport.runtimes import split_target

        return list(dict.fromkeys(":".join(split_target(target)) for target in self.runtime or [])) or None

    def checked_mode(self) -> "Mode | None":
        """Raises:
        SpecError: no such mode.
        """
        from mbexport.profile import Mode

        checked: Mode | None = None if self.mode is None else choice("--mode", self.mode, Mode)
        return checked

    def machine(self) -> "Machine":
        """The machine and its rows, out of --profiles and the shipped profiles.

        Raises:
            InputError: there is no such machine, or more than one.
            DocumentError: a profile is damaged or of a newer release.
        """
        from mbexport.analysis.machine import choose_machine
        from mbexport.hardware import detect
        from mbexport.profiles import list_profiles, shipped_profiles_dir

        return choose_machine(list_profiles([self.profiles, shipped_profiles_dir()]), self.hardware, detect())
