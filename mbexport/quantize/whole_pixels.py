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
    from collections.abc import Collection

    from mbexport.quantize.network import Product


def with_whole_pixels(network: Network, rounded: Collection[str]) -> Network:
    """The same network but for its border, where an input that is rounded has a fraction added to it.

    Args:
        network: in float32.
        rounded: the tensors that will be in 8 bits.
    """
    for product in network.products.values():
        add = _addition(network, product)
        if add is not None and product.groups == 1 and product.input in rounded:
            return _rewritten(network, product, add)
    return network


def _addition(network: Network, product: Product) -> onnx.NodeProto | None:
    """What adds a number that is not whole to the network's input, a Transpose at most between it and a product."""
    tensor = product.input
    maker = network.makers.get(tensor)
    if maker is not None and maker.op_type == "Transpose" and network.only_reader(tensor) is not None:
        tensor = maker.input[0]
        maker = network.makers.get(tensor)
    if maker is None or maker.op_type != "Add" or network.only_reader(tensor) is None:
        return None
    read, number = maker.input
    constant = network.constants.get(number)
    if read not in network.inputs or constant is None or constant.size != 1 or float(constant.item()).is_integer():
        return None
    return maker if abs(float(constant.item())) > 1 else None


def _rewritten(network: Network, product: Product, add: onnx.NodeProto) -> Network:
    before = network.constants[add.input[1]]
    after = np.floor(before)
    moved = float((before - after).item())
    bias = product.bias + moved * product.kernel.sum(axis=(1, 2, 3), dtype=np.float64)
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    for node in model.graph.node:
        if node.output[0] == add.output[0]:
            node.input[1] = f"{add.output[0]}/whole"
            model.graph.initializer.append(numpy_helper.from_array(after, node.input[1]))
        elif node.output[0] == product.output:
            del node.input[2:]
            node.input.append(f"{product.output}/bias_whole")
            model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))
    return Network(model, is_normal=True)
