"""How large a float32 network's numbers become, and what rounding its constants to f16 would cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mbexport.errors import ArtifactError
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_SUMS_OF = {"GlobalAveragePool": ("GlobalLpPool", {"p": 1}), "ReduceMean": ("ReduceL1", {})}
"""Means, and what sums the absolute values of the same numbers."""
_PICTURES = 4
"""So many at once: more would only need more memory."""
_NEGLIGIBLE = 1e-6
"""A channel under this share of its neighbours is a dead one, of which nothing can be lost."""


@dataclass(frozen=True)
class Magnitudes:
    """What was measured, each the largest over all pictures, places and channels."""

    peaks: Mapping[str, float]
    """Float tensor, constants included -> largest absolute value."""
    sums: Mapping[str, float]
    """First output of a product or mean -> largest sum of its terms' absolute values: no partial sum is larger,
    whatever the order in which an engine sums."""
    losses: Mapping[str, float]
    """First output of a node with constants -> their rounding errors in f16, as a share of that sum (of the constants
    themselves where the node is no product). Numbers in f16's normal range lose 2^-11 at most."""


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 tensors: inputs, constants and results of nodes."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    typed = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    made = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    return (typed & made) | set(constants(model))


def constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """The float32 constants that no caller can override."""
    inputs = {value.name for value in model.graph.input}
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in inputs
    }


def magnitudes(model: onnx.ModelProto, inputs: Arrays) -> Magnitudes:
    """Run the network on all pictures and keep the largest of everything.

    Raises:
        ArtifactError: the network holds or makes numbers that are not finite, or ONNX Runtime cannot load it.
        EngineError: ONNX Runtime cannot run it.
        MissingPackageError: onnxruntime is not installed.
    """
    probe = _Probe(model)
    found: dict[str, NDArray[Any]] = {}
    for feeds in _batches(model.graph, inputs):
        for name, value in run_unoptimized(probe.model, feeds).items():
            found[name] = np.maximum(found.get(name, value), value)
    peaks = {name: _peak(array) for name, array in probe.constants.items()}
    peaks |= {name: float(found[output]) for name, output in probe.peaks.items()}
    wrong = next((name for name, peak in peaks.items() if not np.isfinite(peak)), None)
    if wrong is not None:
        raise ArtifactError(
            f"expected finite numbers, and {wrong} holds others in float32; check the weights and build again"
        )
    sums = {name: float(found[output]) for name, output in probe.sums.items()}
    losses = {name: float(found[output]) for name, output in probe.losses.items() if sums[name]}
    return Magnitudes(peaks, sums, _constant_losses(model, probe.constants) | losses)


@dataclass
class _Probe:
    """The network with single numbers for outputs; the maps name the output that holds each."""

    source: onnx.ModelProto
    model: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    peaks: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    losses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model.CopyFrom(self.source)
        self.constants = constants(self.source)
        del self.model.graph.output[:], self.model.graph.node[:]
        self._add_constant("probe/negligible", np.array(_NEGLIGIBLE, np.float32))
        flowing = float_tensors(self.source) - set(self.constants)
        for value in self.source.graph.input:
            self._probe_results([value.name], flowing)
        for node in self.source.graph.node:  # probes stand at once behind what they read, which is not kept for long
            self.model.graph.node.append(node)
            self._probe_results(node.output, flowing)
            if node.op_type in PRODUCTS:
                self._probe_product(node)
            elif node.op_type in _SUMS_OF:
                op_type, attributes = _SUMS_OF[node.op_type]
                total = self._copy(node, list(node.input), "sum", op_type, attributes)
                self.sums[node.output[0]] = self._largest(total)

    def _probe_results(self, names: Iterable[str], flowing: Collection[str]) -> None:
        for name in names:
            if name in flowing:
                self._add("Abs", [name], f"probe/abs/{name}")
                self.peaks[name] = self._largest(f"probe/abs/{name}")

    def _probe_product(self, node: onnx.NodeProto) -> None:
        total = self._copy(node, [self._read(name, np.abs, "abs") for name in node.input], "sum")
        self.sums[node.output[0]] = self._largest(total)
        if any(name in self.constants for name in node.input[:2]):
            lost = self._copy(node, [self._read(name, _rounding_error, "lost") for name in node.input], "loss")
            floor, least, share = (f"probe/{part}/{node.output[0]}" for part in ("floor", "least", "share"))
            self._add("Mul", [self.sums[node.output[0]], "probe/negligible"], floor)
            self._add("Add", [total, floor], least)
            self._add("Div", [lost, least], share)
            self.losses[node.output[0]] = self._largest(share)

    def _read(self, name: str, change: Callable[[NDArray[Any]], NDArray[Any]], kind: str) -> str:
        """A product's input: a constant changed, anything else as its absolute value."""
        if not name or name not in self.constants:
            return name and f"probe/abs/{name}"
        return self._add_constant(f"probe/{kind}/{name}", change(self.constants[name]))

    def _add_constant(self, name: str, array: NDArray[Any]) -> str:
        if all(tensor.name != name for tensor in self.model.graph.initializer):
            self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _copy(
        self,
        node: onnx.NodeProto,
        inputs: list[str],
        kind: str,
        op_type: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """The node once more with other inputs; its result."""
        name = f"probe/{kind}/{node.output[0]}"
        copied = helper.make_node(op_type or node.op_type, inputs, [name], **(attributes or {}))
        copied.attribute.extend(node.attribute)
        self.model.graph.node.append(copied)
        return name

    def _largest(self, name: str) -> str:
        """The output that holds a tensor's largest number."""
        output = f"{name}/largest"
        self._add("ReduceMax", [name], output, keepdims=0)
        self.model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
        return output

    def _add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.model.graph.node.append(helper.make_node(op_type, inputs, [output], **attributes))


def _rounding_error(values: NDArray[Any]) -> NDArray[Any]:
    limit = np.finfo(np.float16).max  # what overflows is told from the peaks
    rounded = np.clip(values, -limit, limit).astype(np.float16).astype(np.float32)
    return np.asarray(np.abs(values - rounded))


def _constant_losses(model: onnx.ModelProto, arrays: Arrays) -> dict[str, float]:
    """The same for the constants of what is no product: sums and products of single numbers."""
    shares = {
        name: float(np.linalg.norm(_rounding_error(array)) / (np.linalg.norm(array) or 1.0))
        for name, array in arrays.items()
    }
    return {
        node.output[0]: max((shares[name] for name in node.input if name in shares), default=0.0)
        for node in model.graph.node
        if node.op_type not in PRODUCTS
    }


def _peak(array: NDArray[Any]) -> float:
    return float(np.abs(array).max(initial=0.0))


def _batches(graph: onnx.GraphProto, inputs: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """A few pictures at a time, or the file's batch where that is fixed, the last picture filling up the last batch."""
    pictures = len(next(iter(inputs.values())))
    fixed = next(value for value in graph.input if value.name in inputs).type.tensor_type.shape.dim[0].dim_value
    batch = fixed or _PICTURES
    for start in range(0, pictures, batch):
        rows = np.arange(start, start + batch)
        kept = np.minimum(rows, pictures - 1) if fixed else rows[rows < pictures]
        yield {name: array[kept] for name, array in inputs.items()}
