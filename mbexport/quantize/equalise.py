"""Channels brought nearer to one magnitude, in the float network, where that changes none of its answers.

A tensor in 8 bits has one range for all channels, and a narrow channel gets few of its levels. What lies between
products and sums, with at most a ReLU between, can be scaled channel by channel: the weights before it are divided and
those behind it multiplied. Where no ReLU lies between it can be shifted too, which biases make up for, so that ranges
of different centres share one zero point. This is cross-layer equalisation (M. Nagel et al., "Data-Free
Quantization", ICCV 2019), drawn out over residual sums and squeeze-excite, by the ranges seen on pictures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from mbexport.compare import sqnr_db
from mbexport.quantize.channel_grids import channel_grid
from mbexport.quantize.counts import count
from mbexport.quantize.groups import groups_of
from mbexport.quantize.network import Network
from mbexport.quantize.node_runs import refuse_infinite, run_node
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.quantize.groups import Group
    from mbexport.quantize.network import Product

    Floats = NDArray[np.float64]

_LOOKED_AT = 32
"""Pictures that tell the channels' magnitudes; a factor that is a little off costs little."""
_SAME_DB = 80.0
"""float32's own rounding leaves 110 dB and more."""
_LEAST_SHARE = 0.02
"""A channel is never scaled as if its range were less than this share of the widest one's: what was still on the
pictures seen may not be so on others."""


@dataclass(frozen=True)
class _Seen:
    """A tensor's channels on pictures."""

    width: Floats
    mean: Floats


def equalised(network: Network, inputs: Sequence[NDArray[np.float32]]) -> Network:
    """The same network in float32, its channels nearer to one magnitude where a product adds them up.

    Args:
        network: in float32.
        inputs: batches of pictures as it takes them, of which the first are enough.

    Raises:
        ArtifactError: the network gives numbers that are not finite.
        EngineError: ONNX Runtime cannot run a node.
    """
    inputs = inputs[: max(1, _LOOKED_AT // len(inputs[0]))]
    groups = [group for group in groups_of(network) if not group.fixed and _is_added_up(network, group)]
    seen = _looked_at(network, inputs, {tensor: group.shifts for group in groups for tensor in group.tensors})
    scales: dict[str, Floats] = {}
    shifts: dict[str, Floats] = {}
    for group in groups:
        if len({len(seen[tensor].mean) for tensor in group.tensors}) == 1:  # else a Reshape did more than flatten
            scale = _scale([seen[tensor] for tensor in sorted(group.tensors) if _into_products(network, tensor)])
            scales |= dict.fromkeys(group.tensors, scale)
            shifts |= {tensor: seen[tensor].mean for tensor in group.tensors if group.shifts}
    found = _rewritten(network, scales, shifts)
    return found if _is_same(network, found, inputs[0]) else network


def _is_same(network: Network, found: Network, batch: NDArray[np.float32]) -> bool:
    """Whether both answer alike: a graph of odd shapes may be read wrongly, and is then left as it is."""
    exact, answers = (run_unoptimized(each.model, dict.fromkeys(each.inputs, batch)) for each in (network, found))
    return all(sqnr_db(exact[name], answers[name]) > _SAME_DB for name in exact)


def _into_products(network: Network, tensor: str) -> bool:
    """Whether a product reads the tensor that adds channels up; depthwise ones never do."""
    found = (network.products.get(node.output[0]) for node in network.readers.get(tensor, []))
    return any(product is not None and product.input == tensor and product.groups == 1 for product in found)


def _is_added_up(network: Network, group: Group) -> bool:
    return any(_into_products(network, tensor) for tensor in group.tensors)


def _looked_at(network: Network, inputs: Sequence[NDArray[np.float32]], wanted: Mapping[str, bool]) -> dict[str, _Seen]:
    """One run through the graph; ``wanted`` are tensors, and whether they may be shifted."""
    left = Counter(name for node in network.nodes for name in set(network.flowing(node)))
    held: dict[str, list[NDArray[Any]]] = {name: list(inputs) for name in network.inputs}
    found = {}
    for node in network.nodes:
        names = list(dict.fromkeys(network.flowing(node)))
        constants = {name: network.constants[name] for name in node.input if name in network.constants}
        left.subtract(names)
        spent = {name for name in names if not left[name]}
        results = run_node(node, {name: held[name] for name in names}, constants, network.model.opset_import, spent)
        for name in spent:
            del held[name]
        for name, batches in zip(filter(None, node.output), results, strict=True):
            held[name] = batches
            if name in wanted:
                refuse_infinite(name, batches)
                found[name] = _seen(batches, shifts=wanted[name])
    return found


def _seen(batches: Sequence[NDArray[np.float32]], *, shifts: bool) -> _Seen:
    """What may be shifted is as wide as it is when its mean is 0."""
    means = [batch.reshape(*batch.shape[:2], -1).mean(axis=(0, 2), dtype=np.float64) for batch in batches]
    mean = np.average(means, axis=0, weights=[len(batch) for batch in batches])
    if shifts:
        offset = mean.astype(np.float32).reshape(-1, *[1] * (batches[0].ndim - 2))
        batches = [batch - offset for batch in batches]
    return _Seen(channel_grid(count(batches)).scale.astype(np.float64), mean)


def _scale(seen: Sequence[_Seen]) -> Floats:
    """One for each channel: the root of the geometric mean of its widths in several tensors.

    All the way to one width would make the weights behind as uneven as the channels were, and those are rounded too.
    On V3 Small and Large powers from 0.5 to 0.75 do the same, 1 does less, and so does allowing for the weights.
    """
    shares = [np.maximum(each.width / each.width.max(), _LEAST_SHARE) for each in seen]
    return np.asarray(np.exp(np.mean(np.log(shares), axis=0) / 2))


def _rewritten(network: Network, scales: Mapping[str, Floats], shifts: Mapping[str, Floats]) -> Network:
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    written: dict[str, NDArray[np.float32]] = {}
    for node in model.graph.node:
        product = network.products.get(node.output[0])
        if product is None or not {product.input, product.output} & scales.keys():
            continue
        kernel, bias = _moved(product, scales, shifts)
        names = [f"{product.output}/{what}_equalised" for what in ("kernel", "bias")]
        written |= {names[0]: product.stored(kernel.astype(np.float32)), names[1]: bias.astype(np.float32)}
        del node.input[1:]
        node.input.extend(names)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in written.items())
    return Network(model, is_normal=True)


def _moved(product: Product, scales: Mapping[str, Floats], shifts: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """Kernel and bias for inputs (x - shift) / scale that give outputs (y - shift) / scale."""
    kernel, bias = product.kernel.astype(np.float64), product.bias.astype(np.float64)
    if product.input in shifts:
        bias = bias + (kernel.sum(axis=(2, 3)) * _by_group(product, shifts[product.input])).sum(axis=1)
    if product.input in scales:
        kernel = kernel * _by_group(product, scales[product.input])[:, :, None, None]
    if product.output in scales:
        bias = (bias - shifts.get(product.output, 0.0)) / scales[product.output]
        kernel = kernel / scales[product.output][:, None, None, None]
    return kernel, bias


def _by_group(product: Product, channels: Floats) -> Floats:
    """(channels,) as (outputs, inputs of a group)."""
    rows = channels.reshape(product.groups, -1)
    return np.asarray(rows.repeat(len(product.kernel) // product.groups, axis=0))
