"""Single operators for random graphs, each with all its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import assume

from tests.random_graphs import AXES_AS_INPUT, CUSTOM_DOMAIN, CUSTOM_OPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.random_graphs import Builder

# Continuous with a slope near 1, so that rounding stays rounding.
GENTLE = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Identity", "Selu")


def where(condition: object, **attributes: Any) -> dict[str, Any]:
    """The attributes, or none."""
    return attributes if condition else {}


def unary(g: Builder, source: str = "") -> str:
    op_type = g.choose(*GENTLE, "Clip", "Clip", "HardSwish")
    source = source or g.data()
    if op_type == "Clip":
        return clip(g, source)
    if op_type == "HardSwish" and g.opset < 14:
        op_type = "Relu"
    return g.node(op_type, [source])


def clip(g: Builder, source: str) -> str:
    bounds = [g.constant(np.float32(-1)), g.constant(np.float32(2))]
    return g.node("Clip", [source, *g.choose([], ["", bounds[1]], bounds[:1], bounds, [bounds[0], ""])])


def operand(g: Builder, shape: Sequence[int]) -> str:
    """A constant that broadcasts against ``shape`` in one of many ways, per channel (axis 1) most often."""
    rank = len(shape)
    per_channel = [1] * rank
    if rank > 1:
        per_channel[1] = shape[1]
    mixed = [size if g.chance(50) else 1 for size in shape]
    last = [*[1] * (rank - 1), shape[-1]] if rank else []
    choices: list[Sequence[int]] = [per_channel, per_channel[1:], per_channel, (), (1,), [1] * rank, last, shape[-1:]]
    choices += [mixed, mixed, shape, [*[1] * (rank + 1)], [2, *[1] * rank]]
    return g.constant(g.noise(g.choose(*choices)))


def binary(g: Builder, source: str = "") -> str:
    source = source or g.data()
    shape = g.shape(source)
    alike = [value for value in g.made if g.shape(value) == shape and g.arrays[value].dtype == np.float32]
    op_type = g.choose("Add", "Sub", "Mul", "Max", "Min", "Div")
    other = g.choose(*alike) if op_type != "Div" and g.chance(35) else operand(g, shape)
    inputs = [source, other]
    if op_type != "Div" and g.chance(40):
        inputs.reverse()
    if op_type in {"Max", "Min"} and g.chance(30):
        inputs = g.choose([source], [source, other, g.constant(np.float32(0.5))])
    return g.node(op_type, inputs)


def conv(g: Builder, source: str = "", *, plain: bool = False) -> str:
    """Any convolution; a ``plain`` one has no groups and no padding."""
    source = source or g.data(3, 4, 5)
    shape = g.shape(source)
    assume(len(shape) > 2 and min(shape[1:]) > 0)
    channels, spatial = shape[1], shape[2:]
    group = 1 if plain else g.choose(*[number for number in (1, 2, channels) if channels % number == 0])
    auto_pad = "" if plain else g.choose("", "", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    same = auto_pad.startswith("SAME")
    padded = auto_pad in {"", "NOTSET"} and not plain and g.chance(60)
    pads = [g.number(0, 2) for _ in range(2 * len(spatial))] if padded else None
    dilations = [1 if same else g.number(1, 2) for _ in spatial]
    around = pads or [0] * (2 * len(spatial))
    kernel = [
        g.number(1, max(1, min(3, (size + around[i] + around[i + len(spatial)] - 1) // dilations[i] + 1)))
        for i, size in enumerate(spatial)
    ]
    attributes: dict[str, Any] = {"strides": [g.number(1, 3) for _ in spatial], "dilations": dilations, "group": group}
    attributes |= ({"auto_pad": auto_pad} if auto_pad else {}) | ({"pads": pads} if pads else {})
    attributes |= {"kernel_shape": kernel} if g.chance(40) else {}
    weights = (group * g.number(1, 2), channels // group, *kernel)
    known = [name for name, array in g.constants.items() if array.shape == weights and array.dtype == np.float32]
    inputs = [source, g.choose(*known) if known and g.chance(60) else g.constant(g.noise(weights))]
    inputs += g.choose([], [], [""], [g.constant(g.noise(weights[:1]))], [g.constant(g.noise(weights[:1]))])
    if inputs[-1] == "":
        inputs.pop()
    return g.node("Conv", inputs, **attributes)


def pad(g: Builder, source: str = "", *, spatial: bool = False) -> str:
    source = source or g.data(2, 3, 4)
    shape = g.shape(source)
    rank = len(shape)
    assume(rank > 0)
    first = 2 if spatial else 0
    mode = g.choose("constant", "constant", "constant", "constant", "reflect", "edge") if g.chance(70) else ""
    low = -1 if g.chance(15) else 0
    high = 1 if mode in {"reflect", "edge"} else 3
    axes = list(range(rank))
    by_axes = g.opset >= AXES_AS_INPUT and g.chance(50)
    if by_axes:
        axes = g.some_axes(rank)
    begins, ends = ([_room(g, shape[axis], low, high, free=axis >= first) for axis in axes] for _ in range(2))
    assume(all(shape[axis] + begins[i] + ends[i] > 0 for i, axis in enumerate(axes)))
    inputs = [source, g.constant(np.array([*begins, *ends], np.int64))]
    zero = g.constant(np.float32(0))
    value = g.choose("", zero, zero, g.constant(np.float32(-0.0)), g.constant(np.float32(1.5))) if g.chance(50) else ""
    if by_axes:
        signed = [axis - rank if g.chance(30) else axis for axis in axes]
        inputs += [value, g.constant(np.array(signed, np.int64))]
    elif value:
        inputs.append(value)
    return g.node("Pad", inputs, **where(mode, mode=mode))


def _room(g: Builder, size: int, low: int, high: int, *, free: bool) -> int:
    if not free and not g.chance(5):
        return 0
    return g.number(low if size > 1 else 0, min(high, max(size - 1, 0)) if high == 1 else high)


def transpose(g: Builder, source: str = "", perm: Sequence[int] | None = None) -> str:
    source = source or g.data()
    rank = len(g.shape(source))
    if perm is None:
        last, first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
        some = g.permutation(rank)
        perm = g.choose(last, first, some, some, None, list(range(rank))) if rank > 1 else None
    return g.node("Transpose", [source], **where(perm, perm=perm))


def reduce(g: Builder, source: str = "") -> str:
    source = source or g.data(1, 2, 3, 4)
    rank = len(g.shape(source))
    op_type = g.choose("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")
    axes = g.some_axes(rank)
    axes = [axis - rank if g.chance(40) else axis for axis in axes]
    attributes: dict[str, Any] = g.choose({}, {"keepdims": 0}, {"keepdims": 1})
    inputs = [source]
    if op_type == "ReduceSum" or g.opset >= AXES_AS_INPUT:
        if axes or g.chance(50):
            inputs.append(g.constant(np.array(axes, np.int64)))
        attributes |= g.choose({}, {}, {"noop_with_empty_axes": 1}, {"noop_with_empty_axes": 0})
    elif axes:
        attributes |= {"axes": axes}
    assume(0 not in g.shape(source))
    return g.node(op_type, inputs, **attributes)


def concat(g: Builder, source: str = "") -> str:
    source = source or g.data(1, 2, 3, 4)
    shape = g.shape(source)
    assume(len(shape) > 0)
    axis = g.number(0, len(shape) - 1)
    alike = [
        value
        for value in g.made
        if g.arrays[value].dtype == np.float32
        and len(g.shape(value)) == len(shape)
        and all(a == b for i, (a, b) in enumerate(zip(g.shape(value), shape, strict=True)) if i != axis)
    ]
    empty = [0 if i == axis else size for i, size in enumerate(shape)]
    parts = [source, *[g.choose(*alike) for _ in range(g.number(0, 2))]]
    if g.chance(10):
        parts.insert(g.number(0, 1), g.constant(np.zeros(empty, np.float32)))
    return g.node("Concat", parts, axis=axis - len(shape) if g.chance(40) else axis)


def static_reshape(g: Builder, source: str = "") -> str:
    source = source or g.data()
    shape, size = g.shape(source), g.arrays[source].size
    target: list[int] = list(shape)
    for _ in range(g.number(0, 3)):
        kind = g.number(0, 4)
        if kind == 0 and len(target) > 1:
            at = g.number(0, len(target) - 2)
            target[at : at + 2] = [target[at] * target[at + 1]]
        elif kind == 1:
            target.insert(g.number(0, len(target)), 1)
        elif kind == 2 and 1 in target:
            target.remove(1)
        elif kind == 3 and target and target[-1] % 2 == 0:
            target[-1:] = [target[-1] // 2, 2]
    attributes = where(g.opset >= 14 and g.chance(25), allowzero=g.number(0, 1))
    if target and g.chance(40) and size:
        target[g.number(0, len(target) - 1)] = -1
    elif not attributes.get("allowzero"):
        target = [0 if i < len(shape) and size == shape[i] and g.chance(50) else size for i, size in enumerate(target)]
    return g.node("Reshape", [source, g.constant(np.array(target, np.int64))], **attributes)


def identity(g: Builder) -> str:
    value = g.data()
    for _ in range(g.number(1, 2)):
        value = g.node("Identity", [value])
    return value


def split(g: Builder) -> str:
    source = g.data(1, 2, 3, 4)
    sizes = [axis for axis, size in enumerate(g.shape(source)) if size > 1]
    assume(sizes)
    axis = g.choose(*sizes)
    parts = g.constant(np.array([1, g.shape(source)[axis] - 1], np.int64))
    return g.node("Split", [source, parts], outputs=2, axis=axis)


def custom(g: Builder, source: str = "") -> str:
    """The same op_type in another domain: no rule may touch it."""
    source = source or g.data()
    inputs = [source, *[g.constant(g.noise(())) for _ in range(g.number(0, 2))]]
    return g.node(g.choose(*CUSTOM_OPS), inputs, domain=CUSTOM_DOMAIN)


def other(g: Builder) -> str:
    source = g.data(2, 3, 4)
    shape = g.shape(source)
    assume(0 not in shape)
    kind = g.choose("Softmax", "Flatten", "GlobalAveragePool", "MatMul", "Gemm", "Squeeze", "Dropout")
    if kind in {"Softmax", "Flatten"}:
        return g.node(kind, [source], axis=g.number(0, len(shape) - 1))
    if kind == "GlobalAveragePool" and len(shape) > 2:
        return g.node(kind, [source])
    if kind == "MatMul":
        return g.node(kind, [source, g.constant(g.noise([shape[-1], 3]))])
    if kind == "Gemm" and len(shape) == 2:
        return g.node(kind, [source, g.constant(g.noise([shape[1], 3])), g.constant(g.noise([3]))], alpha=0.5)
    if kind == "Squeeze" and 1 in shape:
        return g.node(kind, [source, g.constant(np.array([shape.index(1)], np.int64))])
    return g.node("Dropout", [source], outputs=g.number(1, 2))


def broadcast(*shapes: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True
