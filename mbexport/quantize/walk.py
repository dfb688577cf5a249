"""One walk through the graph, on all pictures at once, with the float network beside the one in 8 bits.

Each node is run twice: on the float network's numbers and on those of the network as it is rounded so far. So every
range, every weight and every bias is settled on what will really arrive there, and each product is fitted to what the
float network makes of its own inputs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mbexport.quantize import grids
from mbexport.quantize.channel_grids import cautious_grid, channel_grid
from mbexport.quantize.counts import count, count_halves
from mbexport.quantize.equalise import equalised
from mbexport.quantize.fitting import Weights
from mbexport.quantize.node_runs import refuse_infinite, run_node
from mbexport.quantize.product_fit import Fitter
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.whole_pixels import with_whole_pixels
from mbexport.quantize.widen import widened

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx
    from numpy.typing import NDArray

    from mbexport.quantize.fitting import FloatWeights
    from mbexport.quantize.grids import Grid
    from mbexport.quantize.network import Network, Product
    from mbexport.quantize.node_runs import Batches
    from mbexport.quantize.placement import Placement

_PASSED_ON = {"Add", "Mul", "HardSwish", "Relu", "Clip", "Reshape", "Flatten"}
"""What hands an error in its input on to its readers more or less as it is."""


@dataclass(frozen=True)
class Settled:
    """A placement with all its numbers."""

    network: Network
    """In float32, equalised, widened, and with whole pixels."""
    grids: dict[str, Grid] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    """By output of the product."""
    floats: dict[str, FloatWeights] = field(default_factory=dict)
    """The same of products that stay in float32, where they are not the network's own."""
    hard_swishes: set[str] = field(default_factory=set)
    """Tensors in whose 8-bit numbers a hard-swish can be computed."""
    folded: set[str] = field(default_factory=set)
    """Tensors whose grids were folded into the weights around them."""


@dataclass
class _Twin:
    """A tensor's numbers in both networks, in batches of pictures."""

    exact: Batches
    rounded: Batches


def settle(
    network: Network,
    placement: Placement,
    inputs: Sequence[NDArray[np.float32]],
    *,
    levels: int = 127,
    recipe: Recipe | None = None,
) -> Settled:
    """Settle every grid and every weight of a placement on calibration pictures.

    Args:
        network: in float32.
        placement: where it is to be rounded.
        inputs: batches in the type and layout of the network's input.
        levels: the largest 8-bit weight.
        recipe: what is left out; nothing by default.

    Raises:
        ArtifactError: the network gives numbers that are not finite.
        EngineError: ONNX Runtime cannot run a node.
    """
    recipe = recipe or Recipe()
    if recipe.equalising:
        network = equalised(network, inputs)
    if recipe.widening:
        network = widened(network, placement.products, placement.channels)
    if recipe.whole_pixels:
        network = with_whole_pixels(network, placement.tensors, inputs)
    return _Walk(network, placement, levels, recipe).through(inputs)


class _Walk:
    def __init__(self, network: Network, placement: Placement, levels: int, recipe: Recipe) -> None:
        self._network = network
        self._placement = placement
        self._recipe = recipe
        self._fitter = Fitter(recipe, levels, network.model.opset_import, bf16=placement.bf16)
        self._settled = Settled(network)
        folded = (tensor for tensor, kind in placement.tensors.items() if kind == "folded" and recipe.folding)
        self._divided = {network.makers[tensor].input[0] for tensor in folded}
        self._twins: dict[str, _Twin] = {}
        self._gains: dict[tuple[str, int], NDArray[np.float64]] = {}
        self._left = Counter(name for node in network.nodes for name in set(network.flowing(node)))

    def through(self, inputs: Sequence[NDArray[np.float32]]) -> Settled:
        for product in reversed(self._network.products.values()):  # so that no gain is asked for a whole network deep
            self._gain(product.output, len(product.kernel))
        for name in self._network.inputs:
            exact = list(inputs)
            self._twins[name] = _Twin(
                exact, self._round(name, list(exact)) if name in self._placement.tensors else exact
            )
        for node in self._network.nodes:
            self._step(node)
        return self._settled

    def _step(self, node: onnx.NodeProto) -> None:
        names = list(dict.fromkeys(self._network.flowing(node)))
        twins = {name: self._twins[name] for name in names}
        product = self._network.products.get(node.output[0])
        self._left.subtract(names)
        spent = {name for name in names if not self._left[name]}
        shared = {name for name, twin in twins.items() if twin.exact is twin.rounded}
        if product is not None and not self._is_fitted(product, shared):
            product = None
        once = product is None and shared == twins.keys()
        exact = self._run(node, {name: twin.exact for name, twin in twins.items()}, spent if once else spent - shared)
        if product is not None:
            rounded = [self._fit(product, twins[names[0]].rounded, exact[0], spent=names[0] in spent)]
        elif once:
            rounded = exact
        else:
            rounded = self._run(node, {name: twin.rounded for name, twin in twins.items()}, spent)
        for name in spent:
            del self._twins[name]
        for name, one, other in zip(filter(None, node.output), exact, rounded, strict=True):
            own = list(other) if other is one else other  # the float network's numbers stay as they are
            self._twins[name] = _Twin(one, self._round(name, own) if name in self._placement.tensors else other)

    def _run(self, node: onnx.NodeProto, inputs: dict[str, Batches], spent: Collection[str]) -> list[Batches]:
        constants = {name: self._network.constants[name] for name in node.input if name in self._network.constants}
        return run_node(node, inputs, constants, self._network.model.opset_import, spent)

    def _round(self, tensor: str, batches: Batches) -> Batches:
        """Settle a tensor's grid and round it, batch by batch in its place."""
        refuse_infinite(tensor, batches)
        grid = self._grid(tensor, batches)
        self._settled.grids[tensor] = grid
        for at, batch in enumerate(batches):
            batches[at] = grid.rounded(batch)
        return batches

    def _grid(self, tensor: str, batches: Batches) -> Grid:
        kind, recipe = self._placement.tensors[tensor], self._recipe
        gains = _ones_for_none(self._gain(tensor, batches[0].shape[1]))
        if kind == "hard-swish":
            self._settled.hard_swishes.add(tensor)
            return grids.hard_swish_grid(count(batches), gains)
        if (kind == "folded" and recipe.folding) or (kind == "channel" and recipe.by_channel):
            if kind == "folded":
                self._settled.folded.add(tensor)
            if recipe.caution:
                return cautious_grid(count_halves(batches), gains, clip=recipe.weighted_ranges)
            return channel_grid(count(batches), clip=recipe.weighted_ranges)
        return grids.tensor_grid(count(batches), gains, clip=recipe.weighted_ranges)

    def _gain(self, tensor: str, channels: int) -> NDArray[np.float64]:
        """What an error in each channel does to the network's answers, (channels,), every answer counting alike.

        Squared weights carry it through products, as if errors were independent; activations and sums hand it on.
        """
        if (tensor, channels) not in self._gains:
            total = np.zeros(channels)
            for node in self._network.readers.get(tensor, []):
                total = total + self._gain_through(node, channels)
            self._gains[tensor, channels] = total
        return self._gains[tensor, channels]

    def _gain_through(self, node: onnx.NodeProto, channels: int) -> NDArray[np.float64]:
        product = self._network.products.get(node.output[0])
        if product is not None and product.channels == channels:
            return product.input_gain(_ones_for_none(self._gain(product.output, len(product.kernel))))
        return self._gain(node.output[0], channels) if node.op_type in _PASSED_ON else np.zeros(channels)

    def _is_fitted(self, product: Product, shared: Collection[str]) -> bool:
        """Whether it gets other weights than the network's; what reads inputs in ``shared``, reads the network's."""
        in_float = self._recipe.fitted_islands and (self._placement.bf16 or product.input not in shared)
        return product.output in self._placement.products or in_float

    def _fit(self, product: Product, inputs: Batches, exact: Batches, *, spent: bool) -> Batches:
        is_int8 = product.output in self._placement.products
        grid = self._settled.grids[product.input] if is_int8 else None
        if grid is None:
            refuse_infinite(product.input, inputs)
        is_divided = product.output in self._divided
        weights, answers = self._fitter.fit(product, grid, inputs, exact, is_divided=is_divided, spent=spent)
        if isinstance(weights, Weights):
            self._settled.weights[product.output] = weights
        else:
            self._settled.floats[product.output] = weights
        return answers


def _ones_for_none(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """All channels alike, where nothing that was followed reads them."""
    return gains if gains.any() else np.ones(len(gains))
