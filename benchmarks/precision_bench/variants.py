"""The recipe with one ingredient left out at a time, and networks quantised so."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from mbexport import hardware
from mbexport.quantize.emit import quantized
from mbexport.quantize.islands import PREFIXES, Trial, choose_islands
from mbexport.quantize.kinds import weight_levels
from mbexport.quantize.placement import Islands, Placement, place
from mbexport.quantize.walk import Recipe, settle
from precision_bench.subject import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from mbexport.quantize.network import Network, Product
    from mbexport.quantize.placement import Engine
    from precision_bench.subject import Subject

FULL = "the whole recipe"
WHOLE, QUICK = Recipe(), Recipe(refitting=False, making_up=False)
_INGREDIENTS = tuple(field.name for field in fields(Recipe))
_ACTIVATIONS = {"Relu", "Clip", "HardSwish"}
_TRIED_ON = 32
"""Photographs that settle how much stays in float32, as ``mbexport quantize`` takes them."""


@dataclass(frozen=True)
class Variant:
    """``islands`` None is what ``mbexport quantize`` would choose; ``in_float`` stay in float32 besides."""

    name: str
    recipe: Recipe = WHOLE
    islands: Islands | None = None
    in_float: Callable[[Product], bool] = lambda _product: False


def variants(network: Network, form: Engine, chosen: Islands) -> Iterator[Variant]:
    """Those that differ from the whole recipe in this form of this network, the whole first."""
    yield Variant(FULL)
    kinds = set(place(network, form, chosen).tensors.values())
    needs = {"folding": "folded", "by_channel": "channel"}
    for name in _INGREDIENTS:
        if needs.get(name, "tensor") in kinds:
            yield Variant(f"without {name.replace('_', ' ')}", Recipe(**{name: False}))
    yield Variant("none of these", Recipe(**dict.fromkeys(_INGREDIENTS, False)))
    others = [replace(chosen, first=first) for first in PREFIXES] + [replace(chosen, depthwise=not chosen.depthwise)]
    for islands in others:
        if place(network, form, islands) != place(network, form, chosen):
            yield Variant(f"in float32: {in_words(islands)}", islands=islands)
    if any(_is_gate(product) for product in network.products.values()):
        yield Variant("in float32: squeeze-excite too", in_float=_is_gate)
    yield Variant("in float32: the head too", in_float=lambda product: product.node.op_type == "Gemm")


def in_words(islands: Islands) -> str:
    """What stays in float32."""
    first = f"the first {islands.first} products" if islands.first else ""
    depthwise = "depthwise ones behind a hard-swish" if islands.depthwise else ""
    return " and ".join(filter(None, (first, depthwise))) or "nothing"


def _is_gate(product: Product) -> bool:
    return "squeeze_excite" in product.name


def placed(network: Network, form: Engine, in_float: Collection[str]) -> Placement:
    """Where 8-bit numbers stand when any products, by their outputs, stay in float32, not only the first."""
    seen = copy.copy(network)
    seen.products = {output: product for output, product in network.products.items() if output not in in_float}
    return place(seen, form, Islands())


def _without(network: Network, placement: Placement, left: Collection[str]) -> Placement:
    """More products in float32, and what only they read, unless an 8-bit product makes it: that must be rounded."""

    def is_needless(tensor: str) -> bool:
        readers = [node.output[0] for node in network.readers[tensor] if node.output[0] in placement.products]
        maker = network.makers.get(tensor)
        if maker is not None and maker.op_type in _ACTIVATIONS:
            maker = network.makers.get(maker.input[0])
        is_made_of_8_bits = maker is not None and maker.output[0] in placement.products - set(left)
        return bool(readers) and set(readers) <= set(left) and not is_made_of_8_bits

    tensors = {tensor: kind for tensor, kind in placement.tensors.items() if not is_needless(tensor)}
    return Placement(placement.products - set(left), tensors)


def made(subject: Subject, form: Engine, variant: Variant, half: int, chosen: Islands) -> onnx.ModelProto:
    """A file of one variant, calibrated on one half of the photographs."""
    network = subject.network
    placement = place(network, form, variant.islands or chosen)
    others = {output for output, product in network.products.items() if variant.in_float(product)}
    placement = _without(network, placement, others) if others else placement
    return settled(network, placement, subject.calibrating(half), variant.recipe)


def settled(
    network: Network, placement: Placement, batches: Sequence[NDArray[np.float32]], recipe: Recipe
) -> onnx.ModelProto:
    return quantized(settle(network, placement, batches, levels=levels(), recipe=recipe))


def levels() -> int:
    """The largest weight that this machine multiplies right."""
    machine = hardware.detect()
    return weight_levels(machine.architecture, machine.instruction_sets)


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
        levels=levels(),
    )
    return choose_islands(subject.network, form, targets, trial)
