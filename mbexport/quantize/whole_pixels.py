"""Pixels that are whole numbers in 8 bits too.

Rescaling takes 127.5 from pixels of 0 to 255 and leaves the rest to the first convolution. What it gives lies halfway
between two levels of any grid with a step of 1, whose zero point must be whole: half a level of error in each pixel.
128 in its place leaves none, and a bias makes up for it, but at the border, where padding is now 0.5 of 255 off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from mbexport.quantize.network import Network

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from mbexport.quantize.network import Product

_BETWEEN = {"Transpose", "Cast"}
_SPAN = 64
"""Whole numbers of fewer values than this are no pixels."""


def with_whole_pixels(network: Network, rounded: Collection[str], inputs: Sequence[NDArray[np.float32]]) -> Network:
    """The same network but for its border, where an input of pixels that is rounded has a fraction added to it.

    Args:
        network: in float32.
        rounded: the tensors that will be in 8 bits.
        inputs: batches as the network takes them.
    """
    if all(_are_pixels(batch) for batch in inputs):
        for product in network.products.values():
            add = _addition(network, product)
            if add is not None and product.groups == 1 and product.input in rounded:
                return _rewritten(network, product, add)
    return network


def _are_pixels(batch: NDArray[np.float32]) -> bool:
    return bool((batch == np.rint(batch)).all()) and float(np.ptp(batch)) >= _SPAN


def _addition(network: Network, product: Product) -> onnx.NodeProto | None:
    """What adds a number that is not whole to the network's input, nothing but layout and type between."""
    maker = _behind(network, product.input)
    if maker is None or maker.op_type != "Add" or len(_numbers(network, maker)) != 1:
        return None
    first = next(network.flowing(maker))
    while first in network.makers and network.makers[first].op_type in _BETWEEN:
        first = network.makers[first].input[0]
    return maker if first in network.inputs else None


def _behind(network: Network, tensor: str) -> onnx.NodeProto | None:
    """What makes a tensor that nothing else reads, layout and type aside."""
    maker = network.makers.get(tensor)
    if maker is None or network.only_reader(tensor) is None:
        return None
    return _behind(network, maker.input[0]) if maker.op_type in _BETWEEN else maker


def _numbers(network: Network, add: onnx.NodeProto) -> list[int]:
    """The places of its inputs that are one constant number, and not a whole one."""
    constants = [network.constants.get(name) for name in add.input]
    return [
        at
        for at, found in enumerate(constants)
        if found is not None and found.size == 1 and not float(found.item()).is_integer()
    ]


def _rewritten(network: Network, product: Product, add: onnx.NodeProto) -> Network:
    (at,) = _numbers(network, add)
    before = network.constants[add.input[at]]
    after = np.rint(before)
    moved = float((before - after).item())
    bias = product.bias + moved * product.kernel.sum(axis=(1, 2, 3), dtype=np.float64)
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    for node in model.graph.node:
        if node.output[0] == add.output[0]:
            node.input[at] = f"{add.output[0]}/whole"
            model.graph.initializer.append(numpy_helper.from_array(after, node.input[at]))
        elif node.output[0] == product.output:
            del node.input[2:]
            node.input.append(f"{product.output}/bias_whole")
            model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))
    return Network(model, is_normal=True)
