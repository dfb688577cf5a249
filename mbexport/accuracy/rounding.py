"""What a precision's own rounding costs a network: its graph, rounded as an engine rounds, against itself.

An engine that computes in bf16, TF32, f16 or int8 multiplies rounded factors and sums in float32. Those that compute in
bf16 or f16 also keep biases and what lies between the layers in it, where a layer is a product with the activation and
the addition behind it, which engines fuse. ``docs/accuracy.md`` has the measurements that this follows.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mbexport.accuracy.precisions import ROUNDINGS
from mbexport.compare import sqnr_db
from mbexport.outputs import comparable
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.accuracy.precisions import Precision, Rounding
    from mbexport.manifest import OutputContract

    Arrays = Mapping[str, NDArray[Any]]

_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_BIAS = 2
"""The place of a product's bias among its inputs, behind the two factors."""
_FUSED = {
    *("Add", "BatchNormalization", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu"),
    *("Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh"),
}
"""What engines compute in the product before it, whose result is then never stored."""


def precision_floor_db(
    model: onnx.ModelProto, inputs: Arrays, outputs: Sequence[OutputContract], precision: Precision
) -> dict[str, float]:
    """Output -> SQNR in dB of the model with its numbers rounded, against the model as it is, on ``inputs``.

    It is taken of the quantity that :mod:`mbexport.outputs` compares. The model is its own truth on purpose: against
    Keras's answers, a wrong graph would bring its own limit down to where it stands. ``inf`` where rounding changes
    nothing, ``nan`` where either holds a number that is not finite, as f16 may beyond 65504.

    Raises:
        ArtifactError, EngineError: ONNX Runtime cannot load or run the model.
        MissingPackageError: onnxruntime is not installed.
    """
    exact, answers = file_answers(model, inputs), file_answers(rounded(model, precision), inputs)
    return {output.name: sqnr_db(*comparable(output, exact[output.name], answers[output.name])) for output in outputs}


def rounded(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """A copy of a float32 model that rounds as an engine does that computes in ``precision``.

    Bodies of If, Loop and Scan are left in float32.
    """
    return rounded_by(model, ROUNDINGS[precision])


def rounded_by(model: onnx.ModelProto, rounding: Rounding) -> onnx.ModelProto:
    """The same for one way of rounding."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    _Rounder(copied.graph, rounding).round()
    return copied


class _Rounder:
    """Rounds a graph in place."""

    def __init__(self, graph: onnx.GraphProto, rounding: Rounding) -> None:
        self._graph = graph
        self._rounding = rounding
        self._constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self._done: set[str] = set()
        """Values that are rounded already, by name."""
        self._suffix = _unused_suffix(graph)

    def round(self) -> None:
        stored = _stored(self._graph) if self._rounding.stores else set()
        nodes = list(self._graph.node)
        del self._graph.node[:]
        for node in nodes:
            if node.op_type in _PRODUCTS:
                self._graph.node.extend(self._factors_rounded(node))
            self._graph.node.append(node)
            if node.output[0] in stored:
                self._graph.node.extend(self._result_rounded(self._graph.node[-1]))

    def _factors_rounded(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Let a product read rounded factors; the nodes that round those that are no constants."""
        for place, name in enumerate(node.input):
            if name in self._constants:
                if place < _BIAS or self._rounding.stores:
                    self._round_constant(name, _channel_axis(node, self._constants[name]))
            elif place < _BIAS and name not in self._done:
                node.input[place] = name + self._suffix
                if node.input[place] not in self._done:
                    self._done.add(node.input[place])
                    yield from self._rounding.nodes(name, node.input[place])

    def _round_constant(self, name: str, axis: int) -> None:
        if name not in self._done:
            self._done.add(name)
            values = numpy_helper.to_array(self._constants[name])
            self._constants[name].CopyFrom(numpy_helper.from_array(self._rounding.constant(values, axis), name))

    def _result_rounded(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that bring a node's result to its readers and to the outside, rounded."""
        name = node.output[0]
        self._done.add(name)
        node.output[0] = name + self._suffix
        return self._rounding.nodes(node.output[0], name)


def _stored(graph: onnx.GraphProto) -> set[str]:
    """The results of layers: of the products, or of what is fused behind them."""
    reads = Counter(name for node in graph.node for name in node.input)
    reads.update(output.name for output in graph.output)
    only_reader = {name: node for node in graph.node for name in node.input if reads[name] == 1}
    stored = set()
    for node in graph.node:
        if node.op_type in _PRODUCTS:
            last = node
            while last.output[0] in only_reader and only_reader[last.output[0]].op_type in _FUSED:
                last = only_reader[last.output[0]]
            stored.add(last.output[0])
    return stored


def _channel_axis(node: onnx.NodeProto, constant: onnx.TensorProto) -> int:
    """The axis of a product's constant along which its results lie."""
    rank = len(constant.dims)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    if rank == 1 or node.op_type == "Conv" or transposed:
        return 0
    return 1 if node.op_type == "ConvTranspose" else rank - 1


def _unused_suffix(graph: onnx.GraphProto) -> str:
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    suffix = "/rounded"
    while any(suffix in name for name in names):
        suffix += "_again"
    return suffix


def file_answers(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Outputs by name, without ONNX Runtime's optimizer, which might take roundings away, and in the file's batches.

    Raises:
        ArtifactError, EngineError: ONNX Runtime cannot load or run the model.
        MissingPackageError: onnxruntime is not installed.
    """
    parts = [run_unoptimized(model, feeds) for feeds in _batches(model.graph, inputs)]
    pictures = len(next(iter(inputs.values())))
    return {name: np.concatenate([part[name] for part in parts])[:pictures] for name in parts[0]}


def _batches(graph: onnx.GraphProto, inputs: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """All pictures at once, or in the file's batch where that is fixed, the last picture filling up the last batch."""
    pictures = len(next(iter(inputs.values())))
    fixed = next(value for value in graph.input if value.name in inputs).type.tensor_type.shape.dim[0].dim_value
    batch = fixed or pictures
    for start in range(0, pictures, batch):
        rows = np.minimum(np.arange(start, start + batch), pictures - 1)
        yield {name: array[rows] for name, array in inputs.items()}
