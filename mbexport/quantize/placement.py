"""Which products become 8-bit, and which tensors are rounded to 8 bits, in the form that each engine computes fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbexport.quantize.network import FUSED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mbexport.quantize.network import Network

Engine = Literal["ort", "openvino"]
Kind = Literal["tensor", "channel", "folded", "hard-swish"]
"""One grid for the tensor; one for each channel; the same, where it can be folded into the weights on both sides, so
that no engine need know; or one in whose numbers a hard-swish can be computed."""
_ELEMENTWISE = {"Add", "Mul", "GlobalAveragePool"}


@dataclass(frozen=True)
class Islands:
    """What stays in float32."""

    first: int = 0
    """So many products, from the input on."""
    depthwise: bool = False
    """Whether depthwise products behind a hard-swish do, and what they read: benchmarks/precision.py shows what that is
    worth, and :mod:`mbexport.quantize.islands` why it is never chosen."""


@dataclass(frozen=True)
class Placement:
    """``products`` are the outputs of the products with 8-bit weights; ``tensors`` are rounded, by name."""

    products: frozenset[str]
    tensors: Mapping[str, Kind]


def place(network: Network, engine: Engine, islands: Islands) -> Placement:
    """Where 8-bit numbers stand.

    Args:
        network: in float32.
        engine: whose form it is.
        islands: what stays in float32.
    """
    left = set(list(network.products)[: islands.first]) | (_behind_hard_swish(network) if islands.depthwise else set())
    products = frozenset(network.products.keys() - left)
    tensors: dict[str, Kind] = {network.products[output].input: "tensor" for output in products}
    tensors |= _of_openvino(network, products) if engine == "openvino" else _of_onnxruntime(network, products)
    tensors |= _foldable(network, products)
    return Placement(products, tensors)


def _behind_hard_swish(network: Network) -> set[str]:
    """The outputs of depthwise products that read a hard-swish."""
    return {
        product.output
        for product in network.products.values()
        if product.is_depthwise and product.input in network.makers
        if network.makers[product.input].op_type == "HardSwish"
    }


def _of_openvino(network: Network, products: Collection[str]) -> dict[str, Kind]:
    """8-bit numbers at the inputs of products alone, one grid a channel into depthwise ones.

    OpenVINO computes the activation within the product and rounds its result, so that nothing else is needed.
    """
    inputs = {product.input for product in map(network.products.__getitem__, products) if product.is_depthwise}
    return {tensor: "channel" for tensor in inputs if network.only_reader(tensor) is not None}


def _of_onnxruntime(network: Network, products: Collection[str]) -> dict[str, Kind]:
    """8-bit numbers behind every product and between elementwise operators, which then compute in them too.

    ONNX Runtime makes an 8-bit product only of one whose result is rounded at once, a ReLU or Clip between at most. So
    a hard-swish reads and gives 8-bit numbers. A Gemm is the exception, whose result stays float32.
    """
    found: dict[str, Kind] = {}
    for output in [*products, *_resumed(network, products)]:
        reader = network.only_reader(output)
        if network.products[output].node.op_type == "Gemm" or not network.readers.get(output):
            continue
        if reader is not None and reader.op_type == "HardSwish":
            found[output] = "hard-swish"
            activated = str(reader.output[0])
            if any(node.op_type != "Conv" or node.output[0] in products for node in network.readers.get(activated, [])):
                found[activated] = "tensor"
        else:
            fused = reader is not None and reader.op_type in FUSED
            found[str(reader.output[0]) if reader is not None and fused else output] = "tensor"
    inputs = {network.products[output].input for output in products}
    for node in network.nodes:
        rounded = all(name in found or name in inputs for name in network.flowing(node))
        reader = network.only_reader(node.output[0])
        flattened = reader is not None and reader.op_type in {"Flatten", "Reshape"}  # which rounds it
        if node.op_type in _ELEMENTWISE and rounded and not flattened and node.output[0] not in network.outputs:
            found[str(node.output[0])] = "tensor"
    return found


def _resumed(network: Network, products: Collection[str]) -> list[str]:
    """Float products in the midst of 8-bit ones: what they give is 8-bit again."""
    order = list(network.products)
    first = min((order.index(output) for output in products), default=len(order))
    return [output for output in order[first:] if output not in products]


def _foldable(network: Network, products: Collection[str]) -> dict[str, Kind]:
    """What lies between an 8-bit product, its ReLU or ReLU6, and a depthwise product: both can take a scale a channel.

    This is cross-layer equalisation (M. Nagel et al., "Data-Free Quantization", ICCV 2019) by the ranges themselves.
    An 8-bit number ends where its range does, so a ReLU6 whose range ends at 6 or before needs no node, and does not
    stand in the way.
    """
    found: dict[str, Kind] = {}
    for product in (network.products[output] for output in products):
        maker = network.makers.get(product.input)
        if not product.is_depthwise or maker is None or maker.op_type not in FUSED:
            continue
        alone = network.only_reader(product.input) is not None and network.only_reader(maker.input[0]) is not None
        if alone and maker.input[0] in products and network.clips_at(maker)[0] == 0:
            found[product.input] = "folded"
    return found
