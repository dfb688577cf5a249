"""The bars, each with what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.runtimes import split_target
from precision_bench.accuracy import TARGETS
from precision_bench.networks import ALL, RANDOM, SMALL, V2
from precision_bench.variants import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from precision_bench.records import Distance, Found, Judged, Timed

ORT, OPENVINO = TARGETS["ort"], TARGETS["openvino"]
# network, target, most points of top-1, least agreement, least speed
ACCURACY = (
    (SMALL.name, OPENVINO, 0.005, 0.95, 1.5),
    (SMALL.name, ORT, 0.01, 0.94, 1.25),
    (V2.name, OPENVINO, 0.003, 0.985, 2.2),
    (V2.name, ORT, 0.003, 0.985, 2.2),
)
SPEED = {"V3 Large": {OPENVINO: 1.8, ORT: 1.3}, "V3 Large 0.75": {OPENVINO: 1.8, ORT: 1.3}}
MINIMALISTIC = {OPENVINO: 2.0, ORT: 2.0}
UNDER_BF16_DB, OVER_NNCF_DB = 10.0, 6.0
_EQUAL = 1e-9


@dataclass(frozen=True)
class Bar:
    """What is asked for and what was found, in words; None where that was not measured."""

    network: str
    target: str
    wanted: str
    found: str | None
    met: bool


def bars(found: Found) -> list[Bar]:
    return [*_accuracy(found), *_distances(found), *_by_default(found)]


def _accuracy(found: Found) -> Iterator[Bar]:
    for network, target, most, least, speed in ACCURACY:
        for where, records in (("", found.ablation), (", dithered weights", found.dithered)):
            one, name = judged(records, network, target, FULL), f"{network}{where}"
            drop, agreement = (one.change.top1_drop, one.change.agreement) if one else (None, None)
            yield Bar(
                network=name,
                target=target,
                wanted=f"loses at most {most * 100:g} points of top-1",
                found=points(one) if one else None,
                met=drop is not None and drop <= most + _EQUAL,
            )
            yield Bar(
                network=name,
                target=target,
                wanted=f"agreement at least {least:.1%}",
                found=agreeing(one) if one else None,
                met=agreement is not None and agreement >= least - _EQUAL,
            )
        yield _speed(found, network, target, speed)


def _distances(found: Found) -> Iterator[Bar]:
    for net in RANDOM:
        limits = SPEED.get(net.name)
        for target, speed in (limits or MINIMALISTIC).items():
            yield _speed(found, net.name, target, speed)
            if limits is None:
                continue
            ours = distance(found, net.name, "int8", target)
            for what, margin_db in (("bf16", -UNDER_BF16_DB), ("nncf", OVER_NNCF_DB)):
                if what == "nncf" and target != OPENVINO:
                    continue
                theirs = distance(found, net.name, what, OPENVINO)
                yield from _beside(net.name, target, what, margin_db, ours, theirs)


def _beside(
    network: str, target: str, what: str, margin_db: float, ours: Distance | None, theirs: Distance | None
) -> Iterator[Bar]:
    for where, key in (("reference pictures", "reference_db"), ("photographs", "photographs_db")):
        wanted = f"SQNR on {where} at least {what}'s {margin_db:+g} dB"
        one, other = getattr(ours, key, None), getattr(theirs, key, None)
        if one is None or other is None:
            yield Bar(network, target, wanted, None, met=False)
        else:
            yield Bar(network, target, wanted, f"{one:.1f} dB, {what} {other:.1f} dB", met=one >= other + margin_db)


def judged(records: list[Judged], network: str, target: str, variant: str) -> Judged | None:
    """The file for this target: its own form's, or the only one's."""
    matching = [one for one in records if (one.network, one.target, one.variant) == (network, target, variant)]
    own = [one for one in matching if one.form == split_target(target)[0]]
    shared = len(next(net.forms for net in ALL if net.name == network)) == 1
    return next(iter(own or (matching if shared else [])), None)


def distance(found: Found, network: str, what: str, target: str) -> Distance | None:
    keys = (network, what, target)
    return next((one for one in found.distances if (one.network, one.what, one.target) == keys), None)


def timed(records: list[Timed], network: str, target: str, row: str) -> Timed | None:
    keys = (network, target, row)
    return next((one for one in records if (one.network, one.target, one.row) == keys), None)


def points(one: Judged) -> str:
    """The change of top-1, and its interval."""
    drop, interval = one.change.top1_drop, one.change.top1_drop_ci
    assert drop is not None
    assert interval is not None
    return f"{-drop * 100:+.2f} [{-interval[1] * 100:+.1f}, {-interval[0] * 100:+.1f}]"


def agreeing(one: Judged) -> str:
    """The share of pictures with the same first class, and its interval."""
    share, interval = one.change.agreement, one.change.agreement_ci
    assert share is not None
    assert interval is not None
    return f"{share:.2%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def _speed(found: Found, network: str, target: str, least: float) -> Bar:
    one, wanted = timed(found.timed, network, target, FULL), f"at least {least:g} times as fast"
    if one is None:
        return Bar(network, target, wanted, None, met=False)
    return Bar(network, target, wanted, times(one), one.ratio >= least)


def _by_default(found: Found) -> Iterator[Bar]:
    """No file may be fast by grace of one option alone."""
    for net in ALL:
        for target in TARGETS.values():
            one, wanted = timed(found.by_default, net.name, target, FULL), "faster at the engine's default options"
            yield Bar(net.name, target, wanted, times(one) if one else None, met=one is not None and one.ratio > 1)


def times(one: Timed) -> str:
    """A ratio and its interval."""
    return f"{one.ratio:.2f} [{one.ratio_ci[0]:.2f}, {one.ratio_ci[1]:.2f}]"
