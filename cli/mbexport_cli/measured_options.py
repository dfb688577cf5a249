"""The options that say which measured rows a question is about."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Profiles, choice
from mbexport_cli.profile_folders import DEFAULT, folders, note_unused

if TYPE_CHECKING:
    from mbexport.analysis.machine import Machine, Precision
    from mbexport.quantities import Mode
    from mbexport_cli.screen import Screen

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
            help="parity is the file's own precision, production the engine's own defaults. (default: both)",
            metavar="parity|production",
            rich_help_panel=_ROWS,
            autocompletion=lambda: ["parity", "production"],
        ),
    ] = None
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="What the engine said that it computed in; repeatable. (default: any)",
            metavar="f32|tf32|bf16|f16|int8",
            rich_help_panel=_ROWS,
            autocompletion=lambda: ["f32", "tf32", "bf16", "f16", "int8"],
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
    profiles: Profiles = DEFAULT

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
        from mbexport.quantities import Mode

        checked: Mode | None = None if self.mode is None else choice("--mode", self.mode, Mode)
        return checked

    def precisions(self) -> "list[Precision] | None":
        """Raises:
        SpecError: no such precision.
        """
        from mbexport.analysis.machine import Precision

        return [choice("--precision", word, Precision) for word in self.precision or []] or None

    def machine(self, own: "Screen") -> "Machine":
        """The machine and its rows, out of --profiles and the shipped profiles; ``own`` is told where none is of the
        former.

        Raises:
            InputError: --profiles is no folder of machines' folders; or there is no such machine, or more than one.
            DocumentError: a profile is damaged or of a newer release.
        """
        from mbexport.analysis.machine import choose_machine
        from mbexport.hardware import detect
        from mbexport.profiles import list_profiles

        machine = choose_machine(list_profiles(folders(self.profiles)), self.hardware, detect())
        note_unused(own, self.profiles, [cell.path for cell in machine.cells])
        return machine
