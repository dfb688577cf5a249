"""Depthwise products with a whole number of vectors of channels, the new ones 0, in the float network.

ONNX Runtime 1.31 computes an 8-bit depthwise product fast where its channels are a multiple of 16: of 72 it takes 2.7
times as long as of 80, of 200 three times as long as of 208 (``benchmarks/precision.py --part channels``). MobileNets
have 72, 88, 120, 184 and 200. float32 products need nothing of the kind: there the engine adds channels itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from mbexport.quantize.network import Network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from mbexport.quantize.network import Product

_CHANNELWISE = {"Add", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "GlobalAveragePool"}
"""Operators that keep channels apart. What they make of new ones does not matter: nothing multiplies it but 0."""


def widened(network: Network, products: Collection[str], multiple: int) -> Network:
    """The same network, with channels of 0 added where a depthwise product reads no multiple of ``multiple``.

    Args:
        network: in float32.
        products: the outputs of those that will be in 8 bits; depthwise ones among them are widened.
        multiple: of channels.
    """
    added: dict[str, int] = {}
    for output in products:
        product = network.products[output]
        missing = -product.channels % multiple
        if product.is_depthwise and missing and output not in added:
            added |= dict.fromkeys(_alike(network, product), missing)
    return _rewritten(network, added) if added else network


def _alike(network: Network, product: Product) -> set[str]:
    """All tensors that have the channels of a depthwise product; none where they cannot be told, or must stay."""
    found, left = {product.output}, [product.output]
    ends = {*network.inputs, *network.outputs}
    while left:
        tensor = left.pop()
        for node in _around(network, tensor):
            sharing = set(_sharing(network, node, tensor, product.channels))
            if not sharing or sharing & ends:
                return set()
            left += sharing - found
            found |= sharing
    return found


def _around(network: Network, tensor: str) -> Iterator[onnx.NodeProto]:
    if tensor in network.makers:
        yield network.makers[tensor]
    yield from network.readers.get(tensor, [])


def _sharing(network: Network, node: onnx.NodeProto, tensor: str, channels: int) -> Iterator[str]:
    """Of the tensors around a node those that have the channels of one of them; none where that cannot be told."""
    product = network.products.get(node.output[0])
    if node.op_type in _CHANNELWISE:
        constants = (network.constants[name] for name in node.input if name in network.constants)
        if all(constant.size == 1 for constant in constants):
            yield from (*network.flowing(node), *node.output)
    elif product is None or node.op_type != "Conv":
        return
    elif product.groups == 1:
        if (len(product.kernel) if tensor == product.output else product.channels) == channels:
            yield tensor
    elif product.is_depthwise and len(product.kernel) == product.groups == channels:
        yield from (product.input, product.output)


def _rewritten(network: Network, added: Mapping[str, int]) -> Network:
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    del model.graph.value_info[:]
    for node in model.graph.node:
        product = network.products.get(node.output[0])
        if product is None or not {product.input, product.output} & added.keys():
            continue
        kernel, bias = _padded(product, added)
        names = [f"{product.output}/{what}_widened" for what in ("kernel", "bias")]
        model.graph.initializer.extend(map(numpy_helper.from_array, (kernel, bias), names))
        del node.input[1:]
        node.input.extend(names)
        for attribute in node.attribute:
            if attribute.name == "group" and product.is_depthwise:
                attribute.i = len(kernel)
    return Network(model, is_normal=True)


def _padded(product: Product, added: Mapping[str, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    outputs = added.get(product.output, 0)
    inputs = 0 if product.is_depthwise else added.get(product.input, 0)
    return np.pad(product.kernel, [(0, outputs), (0, inputs), (0, 0), (0, 0)]), np.pad(product.bias, (0, outputs))
