"""Latency of a network that was not measured, from those that were on the same machine.

What a network costs (:mod:`mbexport.analysis.features`) is fitted (:mod:`mbexport.analysis.cost_fit`) to the measured
medians of one runtime, mode, precision and thread count. How far to trust that comes from leaving networks out: each
is predicted by a fit of all the others.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from mbexport.analysis.cost_fit import INTERVAL_SHARE, predicted_s
from mbexport.analysis.features import Cost, block_channels, cost
from mbexport.architecture import macs
from mbexport.bench import statistics
from mbexport.bench.rows import row_of
from mbexport.errors import InputError
from mbexport.profile import Verdict
from mbexport.quantities import Mode
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.analysis.machine import Cell, Machine, Precision

    Vector = NDArray[np.float64]

KIND: Literal["predicted, not measured"] = "predicted, not measured"
LEAST_NETWORKS = 10
"""An interval that holds nine of ten takes nine errors, and checking it takes one network more."""
FAR = 1.5
"""Beyond the measured range by more than this factor a prediction is called an extrapolation."""


class Left(NamedTuple):
    """One network predicted by a fit of all the others; seconds."""

    network: str
    measured_s: float
    predicted_s: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        """Relative to what was measured, as a fraction of 1, without sign."""
        return abs(self.predicted_s / self.measured_s - 1)

    @property
    def held(self) -> bool:
        return self.low_s <= self.measured_s <= self.high_s


class Group(NamedTuple):
    """Measured networks that one fit may span, each once."""

    runtime: str
    mode: Mode
    precision: str
    threads: int
    cells: list[Cell]


class MeasuredBeside(msgspec.Struct, frozen=True, kw_only=True):
    """The same cell, measured; the fit left it out."""

    p50_s: float
    p50_ci_s: tuple[float, float]
    verdict: Verdict
    profile: str


class PredictedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One cell; the names are the keys of the JSON report. Shares and errors are fractions of 1."""

    runtime: str
    mode: Mode
    precision: str
    threads: int
    batch: int = 1
    predicted_p50_s: float
    predicted_interval_s: tuple[float, float]
    interval_share: float = INTERVAL_SHARE
    networks: int
    """How many measured networks it was fitted to."""
    loo_median_error: float
    """Of each of them, predicted by a fit of the others."""
    loo_coverage: float
    """The share of them that their intervals held."""
    extrapolation: list[str]
    """Where the network lies far outside of what was measured; empty where it does not."""
    measured: MeasuredBeside | None


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with too few measured networks for a fit."""

    runtime: str
    mode: Mode
    precision: str
    threads: int
    reason: str


class LatencyPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """What ``profile predict`` answers; the names are the keys of the JSON report."""

    kind: Literal["predicted, not measured"] = KIND
    hardware: str
    this_machine: bool
    network: str
    spec: ModelSpec
    size: tuple[int, int]
    """Height and width in pixels: the spec's own, 224x224 where these are dynamic."""
    macs: int
    rows: list[PredictedRow]
    refused: list[RefusedRow]


def predict_latency(
    spec: ModelSpec,
    machine: Machine,
    *,
    runtimes: Sequence[str] | None = None,
    mode: Mode | None = None,
    threads: int | None = None,
    precisions: Sequence[Precision] | None = None,
) -> LatencyPrediction:
    """The median latency of ``spec`` at ``spec.size``, batch 1, with each of the settings that were measured.

    Raises:
        InputError: nothing was measured with these settings, or too few networks for any fit.
    """
    block = block_channels(machine.hardware.instruction_sets)
    rows: list[PredictedRow] = []
    refused: list[RefusedRow] = []
    cells = machine.chosen(runtimes=runtimes, mode=mode, threads=threads, batch=1, precisions=precisions)
    for group in groups(cells):
        found = _row(spec, group, block)
        if isinstance(found, PredictedRow):
            rows.append(found)
        else:
            refused.append(found)
    if not rows:
        raise InputError(_too_few_text(refused))
    return LatencyPrediction(
        hardware=machine.hardware.slug,
        this_machine=machine.here,
        network=spec.slug,
        spec=spec,
        size=spec.size,
        macs=macs(spec),
        rows=rows,
        refused=refused,
    )


def groups(cells: Iterable[Cell]) -> list[Group]:
    """What may be fitted together: float32 tells nothing of int8, whose kernels, files and graphs are others.

    Left out are invalid rows, users' own networks, narrower files that the engine widened, rows with options or files
    other than the usual ones, and whatever costs the same.
    """
    found: dict[tuple[str, Mode, int, str], dict[Cost, Cell]] = defaultdict(dict)
    for cell in cells:
        row = cell.measurement
        widened = cell.profile.precision not in {"f32", row.precision}
        if cell.spec is not None and row.verdict != "invalid" and not widened and not row.unusual:
            found[row.runtime, row.mode, row.threads, row.precision].setdefault(cost(cell.spec), cell)
    return [
        Group(runtime, mode, precision, threads, list(networks.values()))
        for (runtime, mode, threads, precision), networks in sorted(found.items())
    ]


def leave_one_out(group: Group, block: int) -> list[Left]:
    """Each network of the group as if it had not been measured: fit and interval are of the others alone.

    Args:
        group: at least :data:`LEAST_NETWORKS` networks.
        block: see :func:`mbexport.analysis.features.block_channels`.
    """
    import numpy as np

    terms, medians_s = _matrix(group.cells, block)
    left = []
    for index, cell in enumerate(group.cells):
        others = np.arange(len(medians_s)) != index
        centre_s, factor = predicted_s(terms[others], medians_s[others], terms[index])
        left.append(
            Left(cell.profile.artifact, float(medians_s[index]), centre_s, centre_s / factor, centre_s * factor)
        )
    return left


def _row(spec: ModelSpec, group: Group, block: int) -> PredictedRow | RefusedRow:
    import numpy as np

    wanted = cost(spec)
    same = next((cell for cell in group.cells if cell.spec is not None and cost(cell.spec) == wanted), None)
    others = group._replace(cells=[cell for cell in group.cells if cell is not same])
    settings = {"runtime": group.runtime, "mode": group.mode, "precision": group.precision, "threads": group.threads}
    if len(others.cells) < LEAST_NETWORKS:
        besides = " besides it" if same else ""
        measured = "1 network was" if len(others.cells) == 1 else f"{len(others.cells)} networks were"
        reason = f"{measured} measured{besides}; a prediction needs {LEAST_NETWORKS}"
        return msgspec.convert({**settings, "reason": reason}, RefusedRow)
    centre_s, factor = predicted_s(*_matrix(others.cells, block), np.array(cost(spec, block).terms))
    left = leave_one_out(others, block)
    return PredictedRow(
        runtime=group.runtime,
        mode=group.mode,
        precision=group.precision,
        threads=group.threads,
        predicted_p50_s=centre_s,
        predicted_interval_s=(centre_s / factor, centre_s * factor),
        networks=len(others.cells),
        loo_median_error=statistics.median([each.error for each in left]),
        loo_coverage=sum(each.held for each in left) / len(left),
        extrapolation=list(_extrapolations(spec, others.cells)),
        measured=None if same is None else _measured(same),
    )


def _matrix(cells: Sequence[Cell], block: int) -> tuple[Vector, Vector]:
    """A row of terms for each network, and the measured medians in seconds."""
    import numpy as np

    terms = [cost(cell.spec, block).terms for cell in cells if cell.spec is not None]
    medians_s = [statistics.median(cell.measurement.samples_ns) * 1e-9 for cell in cells]
    return np.array(terms), np.array(medians_s)


def _extrapolations(spec: ModelSpec, cells: Sequence[Cell]) -> Iterator[str]:
    measured = [cell.spec for cell in cells if cell.spec is not None]
    costs, wanted = [cost(one) for one in measured], cost(spec)
    yield from _beyond("multiply-accumulates", macs(spec), [macs(one) for one in measured])
    yield from _beyond("bytes of weights", wanted.weight_bytes, [one.weight_bytes for one in costs])
    yield from _beyond("bytes of feature maps", wanted.activation_bytes, [one.activation_bytes for one in costs])
    if wanted.gated_bytes and not any(one.gated_bytes for one in costs):
        yield "it has squeeze-excite and no measured network has"


def _beyond(what: str, wanted: int, measured: Sequence[int]) -> Iterator[str]:
    if wanted > FAR * max(measured):
        yield f"{wanted / 1e6:.1f} M {what}, {wanted / max(measured):.1f} x the most measured"
    if wanted * FAR < min(measured):
        yield f"{wanted / 1e6:.1f} M {what}, {wanted / min(measured):.2f} x the least measured"


def _measured(cell: Cell) -> MeasuredBeside:
    row = row_of(cell.profile.artifact, cell.measurement)
    return MeasuredBeside(p50_s=row.p50_s, p50_ci_s=row.p50_ci_s, verdict=row.verdict, profile=str(cell.path))


def _too_few_text(refused: Sequence[RefusedRow]) -> str:
    told = "; ".join(
        f"{row.runtime} {row.mode} {row.precision}, threads {row.threads}: {row.reason}" for row in refused[:1]
    )
    told = told or "no row is valid, of a known network, in its file's precision and with the usual options"
    more = f" (and {len(refused) - 1} more like it)" if len(refused) > 1 else ""
    return f"{told}{more}. Measure others, of several widths and resolutions, with: mbexport bench ARTIFACT"
