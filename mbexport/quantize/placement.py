"""Which products become 8-bit, and which tensors are rounded to 8 bits, in the form that each engine computes fast."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbexport.quantize.network import FUSED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mbexport.quantize.network import Network, Product

Engine = Literal["ort", "openvino"]
Kind = Literal["tensor", "channel", "folded", "hard-swish"]
"""One grid for the tensor; one for each channel; the same, where it can be folded into the weights on both sides, so
that no engine need know; or one in whose numbers a hard-swish can be computed."""
_ELEMENTWISE = {"Add", "Mul", "GlobalAveragePool"}
_ACTIVATIONS = {*FUSED, "HardSwish", "HardSigmoid"}
_SMALL = 10_000
"""A 1x1 product of so many weights at most takes about as long to write its results as to multiply."""
_LARGE = 100_000
"""One of more takes much longer in float32, or in bf16 without AMX: 3% for each of V3 Large's last two blocks."""
_CHANNELS: dict[Engine, int] = {"ort": 16, "openvino": 1}


@dataclass(frozen=True)
class Islands:
    """What stays in float32."""

    first: int = 0
    """So many products, from the input on."""
    pixels: bool = False
    """Whether the very first is in 8 bits all the same: what it reads are whole numbers, which lose nothing."""
    expanding: bool = False
    """Whether small products that expand channels into a hard-swish do, with the depthwise ones and the squeeze-excite
    behind them: four roundings less a block, and on ONNX Runtime nearly as fast, where a hard-swish costs as much in 8
    bits as such a product gains (docs/quantization.md has the times)."""
    deep: int = 0
    """The same of so many of the last blocks, unless they are large: little behind them evens their error out."""


@dataclass(frozen=True)
class Placement:
    """``products`` are the outputs of the products with 8-bit weights; ``tensors`` are rounded, by name."""

    products: frozenset[str]
    tensors: Mapping[str, Kind]
    channels: int = 1
    """8-bit depthwise products are computed fast on a multiple of so many."""
    bf16: bool = False
    """Whether an engine may compute in bf16 what is not in 8 bits."""


def place(network: Network, engine: Engine, islands: Islands) -> Placement:
    """Where 8-bit numbers stand.

    Args:
        network: in float32.
        engine: whose form it is.
        islands: what stays in float32.
    """
    return place_all_but(network, engine, left_by(network, islands))


def left_by(network: Network, islands: Islands) -> set[str]:
    """The products that stay in float32, by their outputs."""
    blocks = {tuple(block): network.products[block[0]].kernel.size for block in _expanding(network)}
    narrow = [block for block, size in blocks.items() if islands.expanding and size <= _SMALL]
    deep = [block for block in list(blocks)[max(len(blocks) - islands.deep, 0) :] if blocks[block] <= _LARGE]
    first = list(network.products)[int(islands.pixels) : islands.first]
    return {*first, *itertools.chain(*narrow, *deep)}


def serves_both(network: Network) -> bool:
    """Whether ONNX Runtime's form is fast on OpenVINO too.

    A hard-swish needs 8-bit numbers before it on ONNX Runtime and none on OpenVINO, and behind one OpenVINO takes a
    scale a channel into depthwise products, which ONNX Runtime does not.
    """
    return not any(node.op_type == "HardSwish" for node in network.nodes)


def place_all_but(network: Network, engine: Engine, left: Collection[str]) -> Placement:
    """The same, where any products, by their outputs, stay in float32."""
    products = frozenset(network.products.keys() - set(left))
    tensors: dict[str, Kind] = {network.products[output].input: "tensor" for output in products}
    tensors |= _of_openvino(network, products) if engine == "openvino" else _of_onnxruntime(network, products)
    tensors |= _foldable(network, products)
    return Placement(products, tensors, _CHANNELS[engine], bf16=engine == "openvino" or serves_both(network))


def _expanding(network: Network) -> list[list[str]]:
    """The outputs of the products that :attr:`Islands.expanding` is about, block by block, each's expansion first."""
    found: list[list[str]] = []
    maps: dict[str, list[str]] = {}
    """Blocks by what their products give, and activations of it."""
    pools: dict[str, list[str]] = {}
    """By means of that, and what comes of them."""
    for node in network.nodes:
        output, (read, *_) = str(node.output[0]), [*network.flowing(node), ""]
        product = network.products.get(output)
        if node.op_type == "GlobalAveragePool" and read in maps:
            pools[output] = maps[read]
        elif product is None:
            of = maps if read in maps else pools
            if read in of and node.op_type in _ACTIVATIONS:
                of[output] = of[read]
        elif read in pools:
            pools[output] = pools[read]
            pools[output].append(output)
        elif product.is_depthwise and read in maps:
            maps[output] = maps[read]
            maps[output].append(output)
        elif _expands(network, product):
            maps[output] = [output]
            found.append(maps[output])
    return found


def _expands(network: Network, product: Product) -> bool:
    reader = network.only_reader(product.output)
    if reader is None or reader.op_type != "HardSwish" or product.groups > 1:
        return False
    last = network.only_reader(reader.output[0])
    return last is not None and last.output[0] in network.products and network.products[last.output[0]].is_depthwise


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
    for output in products:
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


def _foldable(network: Network, products: Collection[str]) -> dict[str, Kind]:
    """What lies between a product, its ReLU or ReLU6, and an 8-bit depthwise product: both can take a scale a channel.

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
        if alone and maker.input[0] in network.products and network.clips_at(maker)[0] == 0:
            found[product.input] = "folded"
    return found
