"""A wrong node run again, mended in one of the usual ways, on the engine's own inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from mbexport.errors import MbexportError
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from mbexport.accuracy.causes import Culprit

    Array = NDArray[Any]


def _sigmoid(x: Array) -> Array:
    shares: Array = 1 / (1 + np.exp(-x))
    return shares


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def _hard_swish(slope: float) -> Callable[[Array], Array]:
    return lambda x: x * np.clip(slope * x + 0.5, 0, 1)


UNCHANGED = "its input unchanged"
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "hard-swish": _hard_swish(1 / 6),
    "hard-sigmoid": _hard_sigmoid,
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "ReLU": lambda x: np.maximum(x, 0),
    "swish": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    **{f"hard-swish with {slope} for 1/6": _hard_swish(slope) for slope in (0.2, 0.17, 0.167, 0.1667, 0.16667, 0.166)},
    "a clip between 0 and 1": lambda x: np.clip(x, 0, 1),
    "tanh": np.tanh,
    UNCHANGED: lambda x: x,
}


def by_mending(culprit: Culprit) -> Iterator[str]:
    """What mends it; nothing where nothing known does."""
    yield from _activation(culprit)
    if culprit.node.op_type == "Softmax":
        yield from _softmax(culprit)
    if culprit.node.op_type == "Conv":
        yield from (cause for cause, node, changed in _convolutions(culprit) if _gives_truth(culprit, node, changed))


def whose_fault(culprit: Culprit) -> Iterator[str]:
    """Whether the file says what the engine did."""
    again = _run(culprit, culprit.node, {})
    if again is None:
        return
    same = again.shape == culprit.output.shape and np.array_equal(np.isfinite(again), np.isfinite(culprit.output))
    finite = np.isfinite(again) & np.isfinite(culprit.output) if same else np.False_
    if same and np.allclose(again[finite], culprit.output[finite], rtol=1e-3, atol=1e-4 * _scale(again[finite])):
        yield "the file: the engine computes this node as it is written; its operator, wiring or constants are wrong"
    elif not culprit.is_rounded:  # else its rounding alone makes other numbers
        yield "the engine: run alone, this node gives other numbers than the engine's"


def _scale(array: Array) -> float:
    return float(np.abs(array).max(initial=1e-30))


def _activation(culprit: Culprit) -> Iterator[str]:
    """What the truth is as a function of an input, and what was computed instead."""
    for name in culprit.node.input:
        x = culprit.known.get(name)
        if x is None or x.shape != culprit.output.shape or x.dtype != np.float32:
            continue
        with np.errstate(over="ignore"):
            tried = {word: function(x.astype(np.float64)) for word, function in ACTIVATIONS.items()}
        wanted = next((word for word, result in tried.items() if culprit.explains(result)), None)
        if wanted in {None, UNCHANGED}:  # that is no activation, and what does change it others tell better
            continue
        nearest = max(tried, key=lambda word: _likeness(culprit.output, tried[word]))
        got = nearest if culprit.is_answer(tried[nearest]) else "something else"
        yield f"activation: it should be {wanted} and is {got}"
        return


def _likeness(answer: Array, candidate: Array) -> float:
    from mbexport.compare import sqnr_db

    return sqnr_db(answer, candidate)


def _softmax(culprit: Culprit) -> Iterator[str]:
    x = culprit.known.get(culprit.node.input[0])
    if x is None:
        return
    powers = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    if culprit.explains(powers / powers.sum(axis=-1, keepdims=True)):
        yield "axis: the softmax should be taken over the last axis, the classes"


def _convolutions(culprit: Culprit) -> Iterator[tuple[str, onnx.NodeProto, Mapping[str, Array]]]:
    """(what would be wrong, the node mended, its constants mended)."""
    node, kernel = culprit.node, culprit.known.get(culprit.node.input[1])
    if kernel is None or kernel.ndim != 4:
        return
    if kernel.shape[2] == kernel.shape[3] > 1:
        yield "kernel: its height and width are transposed", node, {node.input[1]: kernel.swapaxes(2, 3)}
    if kernel.shape[1] == 3:
        yield "channel order: colours come as BGR where RGB is expected", node, {node.input[1]: kernel[:, ::-1]}
    for attribute in node.attribute:
        pads = list(attribute.ints)
        if attribute.name == "pads" and pads[:2] != pads[2:]:
            turned = onnx.NodeProto()
            turned.CopyFrom(node)
            next(one for one in turned.attribute if one.name == "pads").ints[:] = [*pads[2:], *pads[:2]]
            yield "padding: it stands on the other side", turned, {}


def _gives_truth(culprit: Culprit, node: onnx.NodeProto, changed: Mapping[str, Array]) -> bool:
    result = _run(culprit, node, changed)
    return result is not None and result.shape == culprit.output.shape and culprit.explains(result)


def _run(culprit: Culprit, node: onnx.NodeProto, changed: Mapping[str, Array]) -> Array | None:
    """The node alone on the inputs that the engine gave it; None where one is not known or it cannot run."""
    names = dict.fromkeys(name for name in node.input if name)
    feeds = {name: changed.get(name, culprit.known.get(name)) for name in names}
    if any(array is None for array in feeds.values()):
        return None
    arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]
    outputs = [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "node", inputs, outputs)
    alone = helper.make_model(graph, opset_imports=culprit.model.opset_import, ir_version=culprit.model.ir_version)
    try:
        return run_unoptimized(alone, arrays)[node.output[0]]
    except MbexportError:
        return None
