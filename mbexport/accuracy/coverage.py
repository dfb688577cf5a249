"""Which knees of a network's activations its reference inputs cross.

A ReLU6 without its 6 gives the same answers where nothing reaches 6, so a comparison there proves nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbexport.manifest import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_UNBOUNDED = 3e38
"""A Clip's bound from here on, next to float32's largest number, stands for none."""


@dataclass(frozen=True)
class _Knee:
    node: str
    value: str
    """Name of the tensor that the activation reads."""
    at: float


def knee_coverage(graph: onnx.GraphProto, tensors: Arrays) -> Coverage:
    """Which knees of a graph's activations have values on both sides.

    Of a hard swish in parts the Clip or the HardSigmoid has the knees. Tensors are looked at whole, for a wrong
    activation is wrong in every channel; by channel one would see those that are never active, hence whose weights are
    untested, but that is the weights' own doing more than the pictures'.

    Args:
        graph: of opset 13 or later, left alone. Bodies of If and Loop are not looked into.
        tensors: what each tensor held on all inputs, these included, by name.
    """
    knees = [knee for knee in _knees(graph) if knee.value in tensors]  # a constant's activation is folded, or odd
    ranges = {knee.value: (tensors[knee.value].min(), tensors[knee.value].max()) for knee in knees}
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
