"""A settled placement as an ONNX model: QuantizeLinear and DequantizeLinear where numbers are rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mbexport.quantize.fitting import FloatWeights, Weights
from mbexport.quantize.grids import LEVELS, Grid
from mbexport.quantize.network import FUSED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mbexport.quantize.network import Product
    from mbexport.quantize.walk import Settled


def quantized(settled: Settled) -> onnx.ModelProto:
    """The network in 8 bits: any engine that knows the two operators computes it, and fuses them as it can."""
    return _Writer(settled).written()


class _Writer:
    def __init__(self, settled: Settled) -> None:
        self._network = settled.network
        self._settled = settled
        self._grids, self._weights, self._divisors = _folded(settled)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._read_as: dict[str, str] = {}
        """Tensor -> what its readers read in its place."""

    def written(self) -> onnx.ModelProto:
        for tensor in self._network.inputs:
            self._round(tensor, tensor)
        for node in self._network.nodes:
            self._write(node)
        model = onnx.ModelProto()
        model.CopyFrom(self._network.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        constants = {**self._network.constants, **self._constants}
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in constants.items() if name in read
        )
        return model

    def _write(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        if node.op_type == "HardSwish" and node.input[0] in self._settled.hard_swishes:
            self._write_hard_swish(node)
        elif self._is_needless(node):
            self._round(output, node.input[0])
            return
        else:
            written = onnx.NodeProto()
            written.CopyFrom(node)
            names = [self._read_as.get(name, name) for name in node.input]
            if output in self._weights:
                names = [names[0], *self._write_weights(self._network.products[output])]
            elif output in self._settled.floats or output in self._divisors:
                names = [names[0], *self._write_floats(self._network.products[output])]
            del written.input[:]
            written.input.extend(names)
            self._nodes.append(written)
        for name in node.output:
            self._round(name, name)

    def _is_needless(self, node: onnx.NodeProto) -> bool:
        """Whether a Relu or Clip cuts off no more than the range of the 8-bit numbers behind it does."""
        grid = self._grids.get(node.output[0])
        if node.op_type not in FUSED or grid is None or node.input[0] not in self._network.products:
            return False
        if self._network.only_reader(node.input[0]) is None or grid.zero_point.any():
            return False
        if node.output[0] in self._network.outputs:
            return False
        low, high = self._network.clips_at(node)
        above = np.float32(high) * np.float32(1 + 1e-5)
        return low == 0 and (node.output[0] in self._settled.folded or bool((grid.high <= above).all()))

    def _write_hard_swish(self, node: onnx.NodeProto) -> None:
        """Compute x * relu6(x + 3) / 6: read with a zero point of 0, the 8-bit numbers of x are those of x + 3."""
        tensor, output = node.input[0], node.output[0]
        grid = self._grids[tensor]
        raised, six = f"{tensor}/QuantizeLinear", 2 * int(grid.zero_point)
        if six < LEVELS:
            bounds = (
                self._constant(f"{output}/zero", np.array(0, np.uint8)),
                self._constant(f"{output}/six", np.array(six, np.uint8)),
            )
            self._nodes.append(helper.make_node("Clip", [raised, *bounds], [f"{output}/Clip"], name=f"{output}/Clip"))
            raised = f"{output}/Clip"
        gate = self._dequantize(raised, f"{output}/gate", np.asarray(grid.scale / 6, np.float32), np.array(0, np.uint8))
        self._nodes.append(helper.make_node("Mul", [self._read_as[tensor], gate], [output], name=node.name))

    def _round(self, tensor: str, source: str) -> None:
        """Round ``source`` and let the readers of ``tensor`` read the result, where it has a grid."""
        grid = self._grids.get(tensor)
        if grid is None:
            return
        name = f"{tensor}/QuantizeLinear"
        terms = [self._constant(f"{tensor}/scale", grid.scale), self._constant(f"{tensor}/zero_point", grid.zero_point)]
        axis: dict[str, Any] = {"axis": 1} if grid.scale.ndim else {}
        self._nodes.append(helper.make_node("QuantizeLinear", [source, *terms], [name], name=name, **axis))
        self._read_as[tensor] = self._add_dequantize(name, tensor, terms, axis)

    def _write_weights(self, product: Product) -> tuple[str, str]:
        """The nodes of kernel and bias; returns the names of what they give."""
        weights, base = self._weights[product.output], product.name
        stored = self._constant(f"{base}/kernel_int8", product.stored(weights.kernel))
        zeros = np.zeros(len(weights.scale), np.int8)
        axis = 1 if product.is_transposed else 0
        kernel = self._dequantize(stored, f"{base}/kernel", weights.scale, zeros, axis)
        units = (product.by_input(self._grids[product.input].scale) * weights.scale).astype(np.float32)
        steps = np.rint(weights.bias.astype(np.float64) / units)
        limits = np.iinfo(np.int32)
        bias = self._constant(f"{base}/bias_int32", np.clip(steps, limits.min, limits.max).astype(np.int32))
        return kernel, self._dequantize(bias, f"{base}/bias", units, np.zeros(len(units), np.int32), 0)

    def _write_floats(self, product: Product) -> tuple[str, str]:
        """Constants of a product that stays in float32."""
        weights = self._settled.floats.get(product.output, FloatWeights(product.kernel, product.bias))
        divisors = self._divisors.get(product.output, np.ones(len(product.kernel), np.float32))
        kernel = product.stored(weights.as_float / divisors[:, None, None, None])
        return self._constant(f"{product.name}/kernel", kernel), self._constant(
            f"{product.name}/bias", weights.bias / divisors
        )

    def _dequantize(
        self, stored: str, base: str, scale: NDArray[Any], zero_point: NDArray[Any], axis: int | None = None
    ) -> str:
        terms = [self._constant(f"{base}_scale", scale), self._constant(f"{base}_zero_point", zero_point)]
        return self._add_dequantize(stored, base, terms, {} if axis is None else {"axis": axis})

    def _add_dequantize(self, stored: str, base: str, terms: list[str], axis: Mapping[str, Any]) -> str:
        name = f"{base}/DequantizeLinear"
        self._nodes.append(helper.make_node("DequantizeLinear", [stored, *terms], [name], name=name, **axis))
        return name

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        while name in self._network.constants:
            name += "_"
        self._constants[name] = np.asarray(array)
        return name


def _folded(settled: Settled) -> tuple[dict[str, Grid], dict[str, Weights], dict[str, NDArray[np.float32]]]:
    """The grids and weights after one scale a channel was moved into the weights on both sides of each such tensor.

    The third are divisors for the outputs of the products before it that stay in float32.
    """
    network, found, weights = settled.network, dict(settled.grids), dict(settled.weights)
    divisors = {}
    for tensor in settled.folded:
        scale = found[tensor].scale
        maker, (reader,) = network.makers[tensor].input[0], network.readers[tensor]
        before, after = weights.get(maker), weights[reader.output[0]]
        if before is None:
            divisors[maker] = scale
        else:
            weights[maker] = Weights(before.kernel, before.scale / scale, before.bias / scale)
        by_output = network.products[reader.output[0]].by_input(scale)
        weights[reader.output[0]] = Weights(after.kernel, after.scale * by_output, after.bias)
        found[tensor] = Grid(np.array(1, np.float32), np.array(0, np.uint8))
    return found, weights, divisors
