"""What the page shows: one machine's rows with the names, groups and published figures that plots and tables need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace as replace_struct

from mbexport.bench.rows import rows_of
from mbexport.catalog import find
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mbexport.analysis.machine import Machine
    from mbexport.bench.rows import BenchRow
    from mbexport.profile import Hardware, LatencyProfile, Measurement
    from mbexport.published import Published
    from mbexport.spec import ModelSpec


class Setting(NamedTuple):
    """What rows must share to stand in one plot."""

    threads: int
    batch: int
    scenario: str
    concurrency: int

    @property
    def text(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{threads}, batch {self.batch}{_SCENARIOS[self.scenario].format(self.concurrency)}"


# In the page's order.
_SCENARIOS = {"single-stream": "", "concurrent": ", {} calls at once", "offline": ", offline"}


_SHIPPED, _OWN = "shipped with mbexport", "measured here"


class Series(NamedTuple):
    """What has one colour and one mark all over the page."""

    runtime: str
    mode: str
    precision: str

    @property
    def text(self) -> str:
        return f"{self.runtime} {self.mode} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement, its figures, and what is known of its network."""

    network: str
    """The artifact's slug, with the size in pixels of what was fed to a network of dynamic size, and with a model file
    or options other than the usual ones."""
    label: str
    """The same, shorter, for plots."""
    spec: ModelSpec | None
    precision: str
    """Of the model file; the series has what the engine computed in."""
    published: Published | None
    """What is known of the network in float32; None of a file in another precision."""
    measured: Measurement
    figures: BenchRow

    @property
    def setting(self) -> Setting:
        measured = self.measured
        return Setting(measured.threads, measured.batch, measured.scenario, measured.concurrency)

    @property
    def series(self) -> Series:
        return Series(self.measured.runtime, self.measured.mode, self.measured.precision)

    @property
    def noisy(self) -> bool:
        return self.measured.verdict == "noisy"


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page; ``rows`` are in the order in which networks stand in it."""

    hardware: Hardware
    origin: str
    """Whose profiles they are."""
    profiles: list[LatencyProfile]
    rows: list[Row]

    @property
    def settings(self) -> list[Setting]:
        """One call after the other first, then by threads and batch."""
        return sorted(
            {row.setting for row in self.rows}, key=lambda each: (list(_SCENARIOS).index(each.scenario), each)
        )

    @property
    def series(self) -> list[Series]:
        return sorted({row.series for row in self.rows})

    def drawn(self, setting: Setting) -> list[Row]:
        """The rows of one setting that plots may show: all but the invalid ones."""
        return [row for row in self.rows if row.setting == setting and row.measured.verdict != "invalid"]


def gather(machine: Machine, shipped: Path) -> ReportData:
    """Derive every row's figures.

    Args:
        machine: holds one row at least.
        shipped: where the profiles lie that travel with mbexport.
    """
    profiles: dict[Path, LatencyProfile] = {}
    for cell in machine.cells:
        rest = profiles.get(cell.path, replace_struct(cell.profile, measurements=[]))
        profiles[cell.path] = replace_struct(rest, measurements=[*rest.measurements, cell.measurement])
    ordered = sorted(profiles.values(), key=_order)
    rows = [row for profile in ordered for row in _rows(profile)]
    if len({row.label for row in rows}) < len({row.network for row in rows}):
        rows = [replace(row, label=row.network) for row in rows]  # a user's network is called as another is shortened
    own = [path for path in profiles if not path.resolve().is_relative_to(shipped.resolve())]
    return ReportData(
        hardware=machine.hardware,
        origin=_SHIPPED if not own else _OWN if len(own) == len(profiles) else f"{_OWN}; others {_SHIPPED}",
        profiles=ordered,
        rows=rows,
    )


def networks_of(rows: Iterable[Row]) -> list[str]:
    """The networks' labels, each once, in the page's order."""
    return list(dict.fromkeys(row.label for row in rows))


def _order(profile: LatencyProfile) -> tuple[object, ...]:
    """By family, width and size; users' own networks behind them, by name."""
    spec = profile.spec
    if spec is None:
        return (1, profile.artifact)
    return (0, spec.variant != "v2", spec.variant, spec.minimalistic, spec.alpha, *spec.size, profile.artifact)


def _rows(profile: LatencyProfile) -> list[Row]:
    published = None if profile.spec is None or profile.precision != "f32" else find(profile.spec)
    pairs = zip(profile.measurements, rows_of(profile), strict=True)
    return [
        Row(
            network=profile.artifact + _how(measured),
            label=_short(profile) + _how(measured),
            spec=profile.spec,
            precision=profile.precision,
            published=published,
            measured=measured,
            figures=figures,
        )
        for measured, figures in sorted(pairs, key=lambda pair: pair[0].key)
    ]


def _how(measured: Measurement) -> str:
    """What parts rows of one network: the size in pixels, and a model file or options other than the usual ones."""
    size = "" if measured.input_size is None else f" at {size_text(measured.input_size)}"
    return f"{size}, {measured.unusual}" if measured.unusual else size


def _short(profile: LatencyProfile) -> str:
    """``v3 large 0.75 224`` for ``mobilenet_v3_large_0.75_224``; users' own names as they are."""
    if profile.spec is None:
        return profile.artifact
    return profile.artifact.removeprefix("mobilenet_").replace("_", " ")
