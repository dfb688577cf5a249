"""An engine's profile held against the work that the graph tells of and against the machine's rates."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from mbexport.operators.attribution import attribute, is_product
from mbexport.operators.table import Achieved, NodeRow, OperatorRow
from mbexport.operators.work import total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.operators.table import MachineRates
    from mbexport.operators.work import GraphWork, Work
    from mbexport.runtimes.profiled import EngineProfile, ProfiledNode

_FLOAT_BYTES = {"f32": 4, "tf32": 4, "bf16": 2, "f16": 2, "int8": 1}


class _Part(NamedTuple):
    """One of the engine's nodes and those of the file that went into it."""

    node: ProfiledNode
    made_of: list[Work]

    @property
    def time_s(self) -> float:
        """The median: what interrupts a run falls on a few nodes, and not on the same ones in the next run."""
        return median(self.node.times_s)

    @property
    def form(self) -> str | None:
        """Of the convolution among them."""
        return next((work.form for work in self.made_of if work.form is not None), None)

    @property
    def macs(self) -> int | None:
        """None where nothing is known of the node, or not the product that it is."""
        if is_product(self.node.operator) and not any(is_product(work.operator) for work in self.made_of):
            return None
        return total([work.macs for work in self.made_of]) if self.made_of else None


class Accounts:
    """``precision`` is the effective one; ``rates`` None means that the times are not the operators' own."""

    def __init__(self, profile: EngineProfile, graph: GraphWork, precision: str, rates: MachineRates | None) -> None:
        self._graph = graph
        self._float_bytes = _FLOAT_BYTES.get(precision)
        self._rates = rates
        parts = map(_Part, profile.nodes, attribute(graph, profile.nodes))
        # What took less than the profilers' microsecond counts where it has work to be accounted for.
        self._parts = [part for part in parts if part.time_s > 0 or part.macs]
        self._kinds: dict[tuple[str, str | None], list[_Part]] = defaultdict(list)
        for part in self._parts:
            self._kinds[part.node.operator, part.form].append(part)
        self.operators_s = sum(part.time_s for part in self._parts)

    @property
    def attributed_macs(self) -> int:
        return sum(work.macs or 0 for part in self._parts for work in part.made_of)

    def rows(self) -> list[OperatorRow]:
        """By type and form, the slowest first. Their shares sum to 1."""
        found = [
            OperatorRow(
                operator=operator,
                form=form,
                nodes=len(parts),
                kernels=dict(Counter(part.node.kernel for part in parts)),
                **msgspec.structs.asdict(self._achieved(parts)),
            )
            for (operator, form), parts in self._kinds.items()
        ]
        return sorted(found, key=lambda row: -row.time_s)

    def slowest(self, count: int) -> list[NodeRow]:
        return [
            NodeRow(
                name=part.node.name,
                made_of=[work.name for work in part.made_of],
                operator=part.node.operator,
                kernel=part.node.kernel,
                shape=None if part.node.shape is None else [*part.node.shape],
                **msgspec.structs.asdict(self._achieved([part])),
            )
            for part in sorted(self._parts, key=lambda part: -part.time_s)[:count]
        ]

    def _achieved(self, parts: Sequence[_Part]) -> Achieved:
        time_s = sum(part.time_s for part in parts)
        macs, moved = total([part.macs for part in parts]), total([self._moved_bytes(part) for part in parts])
        macs_per_s, bytes_per_s = (None if self._rates is None else _over(done, time_s) for done in (macs, moved))
        arithmetic = None if self._rates is None else _over(macs_per_s, self._rates.macs_per_s)
        memory = None if self._rates is None else _over(bytes_per_s, self._rates.bytes_per_s)
        return Achieved(
            time_s=time_s,
            share=time_s / self.operators_s,
            macs=macs,
            moved_bytes=moved,
            macs_per_s=macs_per_s,
            bytes_per_s=bytes_per_s,
            arithmetic_share=arithmetic,
            memory_share=memory,
            bound=_nearer(arithmetic, memory),
        )

    def _moved_bytes(self, part: _Part) -> int | None:
        if not part.made_of or self._float_bytes is None:
            return None
        return self._graph.moved_bytes(part.made_of, self._float_bytes)


def _nearer(arithmetic: float | None, memory: float | None) -> Literal["arithmetic", "memory"] | None:
    if arithmetic is None or memory is None:
        return None
    return "arithmetic" if arithmetic >= memory else "memory"


def _over(amount: float | None, per: float | None) -> float | None:
    """None where either is unknown, or there is nothing to divide by: profilers count whole microseconds."""
    return amount / per if amount is not None and per else None
