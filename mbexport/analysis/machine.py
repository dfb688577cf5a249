"""The measured rows of one machine, out of all the profiles that there are."""

from __future__ import annotations

import difflib
import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

from mbexport.catalog import find
from mbexport.errors import InputError
from mbexport.profiles import same_machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mbexport.catalog import Published
    from mbexport.profile import Hardware, LatencyProfile, Measurement, Scenario
    from mbexport.quantities import Mode
    from mbexport.spec import ModelSpec

Precision = Literal["f32", "tf32", "bf16", "f16", "int8"]
"""What an engine may compute in."""


class Cell(NamedTuple):
    """One measured row and whose it is."""

    path: Path
    profile: LatencyProfile
    measurement: Measurement

    @property
    def spec(self) -> ModelSpec | None:
        """The network at the size that was fed; None for a user's own."""
        spec, size = self.profile.spec, self.measurement.input_size
        return spec if spec is None or size is None else spec.at(*size)

    @property
    def published(self) -> Published | None:
        """The published figures that speak of this network, whatever its weights were when it was measured. They are
        float32's, so there are none of a file in a narrower precision.
        """
        spec = self.spec
        return None if spec is None or self.profile.precision != "f32" else find(spec)


class Machine(NamedTuple):
    """One machine and what was measured on it, in the scenarios asked for."""

    hardware: Hardware
    here: bool
    """Whether it is the machine that this runs on."""
    cells: list[Cell]

    def runtimes(self) -> list[str]:
        return sorted({cell.measurement.runtime for cell in self.cells})

    def chosen(
        self,
        *,
        runtimes: Sequence[str] | None,
        mode: Mode | None,
        threads: int | None,
        batch: int,
        precisions: Sequence[Precision] | None = None,
    ) -> list[Cell]:
        """The cells with these settings; None means any. Precisions are those that engines said they computed in.

        Raises:
            InputError: there are none.
        """
        found = [
            cell
            for cell in self.cells
            if (not runtimes or cell.measurement.runtime in runtimes)
            and mode in {None, cell.measurement.mode}
            and threads in {None, cell.measurement.threads}
            and cell.measurement.batch == batch
            and (not precisions or cell.measurement.precision in precisions)
        ]
        if not found:
            asked = _settings_text(runtimes, mode, threads, batch, precisions)
            raise InputError(
                f"nothing was measured on {self.hardware.slug} with {asked}; there are {self._measured_text()}"
            )
        return found

    def _measured_text(self) -> str:
        rows = [cell.measurement for cell in self.cells]
        threads = ", ".join(map(str, sorted({row.threads for row in rows})))
        batches = ", ".join(map(str, sorted({row.batch for row in rows})))
        modes = " and ".join(sorted({row.mode for row in rows}))
        precisions = ", ".join(sorted({row.precision for row in rows}))
        return f"{', '.join(self.runtimes())}; {modes}; {precisions}; threads {threads}; batch {batches}"


def choose_machine(
    profiles: Mapping[Path, LatencyProfile],
    wanted: str | None,
    own: Hardware,
    scenarios: tuple[Scenario, ...] = ("single-stream",),
) -> Machine:
    """The machine named ``wanted``; else this one, ``own``, if it has profiles; else the only one that has.

    Where several folders hold the same row of the same network, the first of ``profiles`` counts; so does its folder
    where folders hold different machines of one name.

    Raises:
        InputError: no profiles, none of that machine, several to choose from, or two machines under one name.
    """
    slugs = sorted({profile.hardware.slug for profile in profiles.values()})
    if not slugs:
        raise InputError("no profiles yet; measure with: mbexport bench ARTIFACT")
    slug = _slug(slugs, wanted, own.slug)
    found = {path: profile for path, profile in profiles.items() if profile.hardware.slug == slug}
    _check_one_machine(found)
    hardware = next(iter(found.values())).hardware
    cells: dict[object, Cell] = {}
    for path, profile in found.items():
        for row in profile.measurements if same_machine(hardware, profile.hardware) else []:
            if row.scenario in scenarios:
                key = (profile.artifact, profile.spec, row.input_size, row.key)
                cells.setdefault(key, Cell(path, profile, row))
    return Machine(hardware, same_machine(hardware, own), list(cells.values()))


def _slug(slugs: Sequence[str], wanted: str | None, own: str) -> str:
    if wanted is not None:
        if wanted in slugs:
            return wanted
        near = difflib.get_close_matches(wanted, slugs, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(slugs)}"
        raise InputError(f"no profiles of a machine called {wanted!r}; {hint}")
    if own in slugs:
        return own
    if len(slugs) > 1:
        raise InputError(
            f"this machine ({own}) has no profiles; choose another with --hardware: {', '.join(slugs)}; "
            "or measure with: mbexport bench ARTIFACT"
        )
    return slugs[0]


def _check_one_machine(profiles: Mapping[Path, LatencyProfile]) -> None:
    """One folder is one machine; two folders may each hold another one of the same name."""
    for (first, one), (second, other) in itertools.pairwise(profiles.items()):
        if first.parent == second.parent and not same_machine(one.hardware, other.hardware):
            raise InputError(
                f"{first} and {second} were measured on two machines with the same name; keep one machine's in a folder"
            )


def _settings_text(
    runtimes: Sequence[str] | None,
    mode: Mode | None,
    threads: int | None,
    batch: int,
    precisions: Sequence[Precision] | None,
) -> str:
    lists = [" or ".join(words) if words else None for words in (runtimes, precisions)]
    named = [lists[0], mode, lists[1], None if threads is None else f"threads {threads}"]
    return ", ".join([*(name for name in named if name is not None), f"batch {batch}"])
