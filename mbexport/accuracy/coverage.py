"""Which knees of a network's activations its reference inputs cross.

A ReLU6 without its 6 gives the same answers where nothing reaches 6, so a comparison there proves nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_UNBOUNDED = 3e38
"""A Clip's bound from here on, next to float32's largest number, stands for none."""


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of its activations' shapes a network shows on its reference inputs."""

    activations: int
    """Nodes with at least one knee."""
    knees: int
    crossed: int
    """Knees with values on both sides."""
    missed: list[str]
    """The others, such as ``expanded_conv_3/Clip at 6``."""


@dataclass(frozen=True)
class _Knee:
    node: str
    value: str
    """Name of the tensor that the activation reads."""
    at: float


def knee_coverage(model: onnx.ModelProto, inputs: Arrays) -> Coverage:
    """Run a finished graph on ONNX Runtime's CPU, its optimizer off, and see which knees the inputs cross.

    Of a hard swish in parts the Clip or the HardSigmoid has the knees. Tensors are looked at whole, for a wrong
    activation is wrong in every channel; by channel one would see those that are never active, hence whose weights are
    untested, but that is the weights' own doing more than the pictures'.

    Args:
        model: of opset 13 or later, left alone. Bodies of If and Loop are not looked into.
        inputs: input name -> array with the batch first.

    Raises:
        EngineError: ONNX Runtime cannot run the model.
    """
    knees = list(_knees(model.graph))
    ranges = _ranges(model, list(dict.fromkeys(knee.value for knee in knees)), inputs) if knees else {}
    missed = [knee for knee in knees if not ranges[knee.value][0] < knee.at < ranges[knee.value][1]]
    return Coverage(
        activations=len({knee.node for knee in knees}),
        knees=len(knees),
        crossed=len(knees) - len(missed),
        missed=[f"{knee.node} at {knee.at:g}" for knee in missed],
    )


def _knees(graph: onnx.GraphProto) -> Iterator[_Knee]:
    constants = _constants(graph)
    for node in graph.node:
        for at in _places(node, constants):
            yield _Knee(node.name or node.output[0], node.input[0], at)


def _places(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Sequence[float]:
    """Where the node's function has a knee, by the operators' definitions in the ONNX specification."""
    if node.domain:
        return ()
    if node.op_type in {"Relu", "LeakyRelu", "PRelu"}:
        return (0.0,)
    if node.op_type == "HardSwish":
        return (-3.0, 3.0)
    if node.op_type == "HardSigmoid":
        given = {attribute.name: attribute.f for attribute in node.attribute}
        alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
        return (-beta / alpha, (1 - beta) / alpha) if alpha else ()
    if node.op_type == "Clip":
        bounds = [_number(constants[name]) for name in node.input[1:] if name in constants]
        return [bound for bound in bounds if abs(bound) < _UNBOUNDED]
    return ()


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """By name, those that no caller can override."""
    inputs = {value.name for value in graph.input}
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
    made = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    return constants | {node.output[0]: node.attribute[0].t for node in made}


def _number(tensor: onnx.TensorProto) -> float:
    from onnx import numpy_helper

    return float(numpy_helper.to_array(tensor).reshape(()))


def _ranges(model: onnx.ModelProto, values: Sequence[str], inputs: Arrays) -> dict[str, tuple[float, float]]:
    """The least and the largest element of each value over all inputs; only these two leave the engine."""
    import numpy as np

    from mbexport.runtimes.ort import engine_errors, import_onnxruntime

    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors come as exceptions
    with engine_errors("ONNX Runtime refuses the graph"):
        probe = _with_ranges(model, values).SerializeToString()
        session = ort.InferenceSession(probe, options, providers=["CPUExecutionProvider"])
        found = np.array([session.run(None, feeds) for feeds in _batches(model.graph, inputs)])
    low, high = found[:, ::2].min(axis=0), found[:, 1::2].max(axis=0)
    return dict(zip(values, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _with_ranges(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy that gives out the least and the largest element of each value, in turn, and nothing else."""
    import onnx
    from onnx import helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for number, value in enumerate(values):
        for kind in ("ReduceMin", "ReduceMax"):
            result = f"mbexport.coverage/{kind}_{number}"
            # Without axes, which became an input at opset 18, all are reduced in every opset.
            copy.graph.node.append(helper.make_node(kind, [value], [result], name=result, keepdims=0))
            copy.graph.output.append(helper.make_empty_tensor_value_info(result))
    return copy


def _batches(graph: onnx.GraphProto, inputs: Arrays) -> Iterator[Arrays]:
    """As many inputs at a time as the graph takes, all of them where that is open; the last fills up the last batch."""
    import numpy as np

    count = len(next(iter(inputs.values())))
    fixed = {value.name: value.type.tensor_type.shape.dim for value in graph.input if value.name in inputs}
    batch = next((dims[0].dim_value for dims in fixed.values() if dims), 0) or count
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        yield {name: array[rows] for name, array in inputs.items()}
