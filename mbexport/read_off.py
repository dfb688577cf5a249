"""What only a converted graph tells of a user's network: the pictures that it expects, and what its outputs are."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from mbexport.contract import AS_IT_IS, SYMMETRIC, InputRule
from mbexport.convert import INPUT
from mbexport.errors import InputError
from mbexport.labels import IMAGENET_CLASSES, imagenet_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from mbexport.labels import Label
    from mbexport.manifest import OutputKind
    from mbexport.subject import About

_BLOCK = re.compile("expanded_conv[_/]depthwise")
"""In the names of every Keras MobileNetV2 and V3, whatever is built round it."""
_KEEP_THE_RANGE = {
    *("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Resize", "Slice", "Gather", "Pad"),
    *("Clip", "Min", "Max", "MaxPool"),
}
_LAYERS = {"Conv", "MatMul", "Gemm"}
_LINEAR = {"Gemm", "MatMul", "Add", "Conv", "Reshape", "Flatten", "Squeeze"}
"""What a classifier without an activation ends in."""
_RULES = (AS_IT_IS, InputRule(0.0, 255.0), SYMMETRIC)
"""Pictures of 0..255, of 0..1 and of -1..1."""
_MOST = 4.0
"""How large a picture may become: ImageNet's darkest blue is at -2.1 and its brightest red at 2.6 deviations."""
_LEAST_SPAN = 0.5
"""How far dark and bright must at least stand apart."""
_GIVE = "give --input-range 0,255 or -1,1 or 0,1"
NO_SCALING = (
    "the graph does not scale its pictures: -1..1 is assumed, as Keras's MobileNets without Rescaling expect; "
    "if it is otherwise, give --input-range"
)


ASSUMED_LABELS = "its 1000 classes are taken for ImageNet's; if they are others, give --labels"
_IMAGENETS_OWN = {"random", "imagenet", "timm", "slim"}
OUTSIDE_THE_GRID = (
    "its layers are not those of a Keras MobileNet, so it is outside the tested grid; every pass is guarded and the "
    "whole compared with the framework all the same"
)


def with_what_the_graph_tells(
    about: About, proto: onnx.ModelProto, labels: Sequence[Label] | None
) -> tuple[About, InputRule, dict[str, OutputKind]]:
    """The same with labels and notes; the rule for its pictures; each output's kind.

    Args:
        about: what is known already.
        proto: the network as converted.
        labels: given by the user, instead of those that are known.

    Raises:
        InputError: labels of another number than the classes.
    """
    rule, notes = about.rule, about.notes
    if rule is None:
        rule = rule_of_graph(proto)
        if rule is None:
            rule, notes = SYMMETRIC, (*notes, NO_SCALING)
    if about.spec is None and not any(_BLOCK.search(node.name) for node in proto.graph.node):
        notes = (*notes, OUTSIDE_THE_GRID)
    kinds = {value.name: about.kind or output_kind(value, proto, labels) for value in proto.graph.output}
    classes = _classes(proto, kinds)
    if labels is not None:
        if [len(labels)] != classes[:1]:
            found = f"{classes[0]} classes" if classes else "no output that tells classes apart"
            raise InputError(f"{len(labels)} labels were given, and the network has {found}; give one label a class")
        about = replace(about, labels=list(labels))
    elif classes[:1] == [IMAGENET_CLASSES]:
        about = replace(about, labels=list(imagenet_labels()))
        if about.origin.kind not in _IMAGENETS_OWN:
            notes = (*notes, ASSUMED_LABELS)
    return replace(about, notes=notes, rule=rule), rule, kinds


def output_kind(value: onnx.ValueInfoProto, proto: onnx.ModelProto, labels: Sequence[Label] | None) -> OutputKind:
    """Probabilities behind a softmax; logits where a linear layer gives one number for each label; else features."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    node = makers.get(value.name)
    while node is not None and node.op_type in {"Identity", "Cast"}:
        node = makers.get(node.input[0])
    shape = _shape(value)
    if node is not None and node.op_type == "Softmax" and len(shape) == 2:
        return "probabilities"
    is_linear = node is not None and node.op_type in _LINEAR
    return "logits" if labels is not None and is_linear and shape[1:] == [len(labels)] else "features"


def rule_of_graph(proto: onnx.ModelProto) -> InputRule | None:
    """The rule that what stands in front of the first layer asks for; None where nothing scales.

    Raises:
        InputError: it cannot be told, or the pictures would be scaled twice.
    """
    factor, offset, found = _in_front(proto)
    if found is not None:
        raise InputError(f"what range of pictures the network expects cannot be read off its graph ({found}); {_GIVE}")
    if np.all(factor == 1) and np.all(offset == 0):
        return None
    ends = {
        rule: np.array([factor * ((end - rule.mean) / rule.scale) + offset for end in (0.0, 255.0)]) for rule in _RULES
    }
    for fits in (_is_usual, _is_moderate):
        candidates = [rule for rule in _RULES if fits(ends[rule])]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            break
    low, high = ends[AS_IT_IS]
    made = f"it makes {low.min():.3g}..{high.max():.3g} of 0..255"
    if np.abs(ends[AS_IT_IS]).max() <= _MOST:
        raise InputError(
            f"the network scales its pictures twice: {made}; take one scaling out, or to convert it as it is, {_GIVE}"
        )
    raise InputError(f"what range of pictures the network expects cannot be told ({made}); {_GIVE}")


def _is_usual(ends: NDArray[np.float64]) -> bool:
    """-1..1 or 0..1, to 2%."""
    return any(np.allclose(ends, [[low], [1.0]], atol=0.02) for low in (-1.0, 0.0))


def _is_moderate(ends: NDArray[np.float64]) -> bool:
    return bool(np.abs(ends).max() <= _MOST and np.abs(ends[1] - ends[0]).min() >= _LEAST_SPAN)


def _in_front(proto: onnx.ModelProto) -> tuple[NDArray[np.float64], NDArray[np.float64], str | None]:
    """Factor and offset, by channel, of what comes before the first layer with weights; what could not be read."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant"}
    factor, offset = np.ones(1), np.zeros(1)
    name = INPUT
    while True:
        readers = [node for node in proto.graph.node if name in node.input and node.op_type != "Shape"]
        if readers and all(node.op_type in _LAYERS for node in readers):
            return factor, offset, None
        if len(readers) != 1:
            return factor, offset, "several operations read them"
        node = readers[0]
        is_repeated = node.op_type == "Concat" and set(node.input) == {name}  # grey pictures as three channels
        if node.op_type not in _KEEP_THE_RANGE and not is_repeated:
            step = _affine(node, name, constants)
            if step is None:
                return factor, offset, f"they go into {node.op_type}"
            factor, offset = factor * step[0], offset * step[0] + step[1]
        name = node.output[0]


def _affine(
    node: onnx.NodeProto, name: str, constants: dict[str, onnx.TensorProto]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """What the node does to its input as (factor, offset) by channel, where it is one of the four with a constant."""
    if len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == name else node.input[0]
    if other not in constants or (node.op_type == "Div" and node.input[0] != name):
        return None
    number = numpy_helper.to_array(constants[other]).astype(np.float64).reshape(-1)
    if number.size not in {1, 3}:
        return None
    one, zero, sign = np.ones(1), np.zeros(1), 1 if node.input[0] == name else -1
    with np.errstate(divide="ignore"):
        steps = {
            "Add": (one, number),
            "Sub": (sign * one, -sign * number),
            "Mul": (number, zero),
            "Div": (1 / number, zero),
        }
    return steps.get(node.op_type)


def _classes(proto: onnx.ModelProto, kinds: dict[str, OutputKind]) -> list[int | None]:
    """How many classes each output tells apart, of those that do. Labels are for the first."""
    shapes = [_shape(value) for value in proto.graph.output if kinds[value.name] != "features"]
    return [shape[1] for shape in shapes if len(shape) == 2]


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
