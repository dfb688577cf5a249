"""The recipe with one ingredient left out at a time, and networks quantised so."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from mbexport import hardware
from mbexport.quantize.emit import quantized
from mbexport.quantize.islands import Cpu, Trial, choices, choose_islands
from mbexport.quantize.kinds import cpu_of
from mbexport.quantize.placement import Islands, left_by, place, place_all_but
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import settle
from mbexport.quantize.whole_pixels import with_whole_pixels
from mbexport.quantize.widen import widened
from precision_bench.subject import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from mbexport.quantize.network import Network, Product
    from mbexport.quantize.placement import Engine, Placement
    from precision_bench.subject import Subject

FULL = "the whole recipe"
WHOLE, QUICK = Recipe(), Recipe(refitting=False, making_up=False)
_INGREDIENTS = tuple(field.name for field in fields(Recipe))
_TRIED_ON = 32
"""Photographs that settle how much stays in float32, as ``mbexport quantize`` takes them."""


@dataclass(frozen=True)
class Variant:
    """``islands`` None is what ``mbexport quantize`` would choose; ``in_float`` stay in float32 besides."""

    name: str
    recipe: Recipe = WHOLE
    islands: Islands | None = None
    in_float: Callable[[Product], bool] = lambda _product: False


def variants(
    network: Network, form: Engine, chosen: Islands, shown: Sequence[NDArray[np.float32]]
) -> Iterator[Variant]:
    """Those that differ from the whole recipe in this form of this network, the whole first."""
    yield Variant(FULL)
    placement = place(network, form, chosen)
    kinds = set(placement.tensors.values())
    needed = {
        "folding": "folded" in kinds,
        "fitted_islands": placement.bf16 or chosen.expanding or chosen.deep > 0,
        "by_channel": "channel" in kinds,
        "caution": bool({"folded", "channel"} & kinds),
        "whole_pixels": with_whole_pixels(network, placement.tensors, shown) is not network,
        "widening": widened(network, placement.products, placement.channels) is not network,
    }
    for name in _INGREDIENTS:
        if needed.get(name, True):
            yield Variant(f"without {name.replace('_', ' ')}", Recipe(**{name: False}))
    yield Variant("none of these", Recipe(**dict.fromkeys(_INGREDIENTS, False)))
    for islands in choices(network, form, replace(cpu(), amx=False)):  # all: with AMX it shows why fewer are tried
        if place(network, form, islands) != placement:
            yield Variant(f"in float32: {in_words(islands)}", islands=islands)
    if any(_is_gate(product) for product in network.products.values()):
        yield Variant("in float32: squeeze-excite too", in_float=_is_gate)
    yield Variant("in float32: the head too", in_float=lambda product: product.node.op_type == "Gemm")


def in_words(islands: Islands) -> str:
    """What stays in float32."""
    count = islands.first
    first = f"the first {count} products" if count else ""
    first += " but the very first" if islands.pixels else ""
    expanding = "narrow blocks with a hard-swish" if islands.expanding else ""
    blocks = "block" if islands.deep == 1 else f"{islands.deep} blocks"
    deep = f"the last {blocks} with a hard-swish" if islands.deep else ""
    return ", ".join(filter(None, (first, expanding, deep))) or "nothing"


def _is_gate(product: Product) -> bool:
    return "squeeze_excite" in product.name


def made(subject: Subject, form: Engine, variant: Variant, half: int, chosen: Islands) -> onnx.ModelProto:
    """A file of one variant, calibrated on one half of the photographs."""
    network = subject.network
    others = {output for output, product in network.products.items() if variant.in_float(product)}
    placement = place_all_but(network, form, left_by(network, variant.islands or chosen) | others)
    return settled(network, placement, subject.calibrating(half), variant.recipe)


def settled(
    network: Network, placement: Placement, batches: Sequence[NDArray[np.float32]], recipe: Recipe
) -> onnx.ModelProto:
    return quantized(settle(network, placement, batches, levels=cpu().levels, recipe=recipe))


def cpu() -> Cpu:
    """How this machine multiplies."""
    machine = hardware.detect()
    return cpu_of(machine.architecture, machine.instruction_sets)


def islands_of(subject: Subject, form: Engine, targets: Sequence[str]) -> Islands:
    """What ``mbexport quantize`` would leave in float32, by a few photographs."""
    few = subject.calibrating(0)[: 2 * _TRIED_ON // BATCH]
    middle = len(few) // 2
    trial = Trial(
        contract=subject.artifact.manifest.input,
        output=subject.output,
        calibrating=few[:middle],
        judging=few[middle:],
        exact=subject.exact[0::2][middle * BATCH :],
        cpu=cpu(),
    )
    return choose_islands(subject.network, form, targets, trial)
