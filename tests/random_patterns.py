"""For each pass its pattern and its near misses, out of which random graphs are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import assume

from tests.random_graphs import AXES_AS_INPUT, CUSTOM_DOMAIN, CUSTOM_OPS
from tests.random_operators import (
    binary,
    broadcast,
    concat,
    conv,
    custom,
    identity,
    operand,
    other,
    pad,
    reduce,
    split,
    static_reshape,
    transpose,
    unary,
    where,
)

if TYPE_CHECKING:
    from tests.random_graphs import Builder


def affine(g: Builder) -> str:
    """Conv and up to three steps by constants: FoldAffine's pattern when they are per channel and nobody else reads."""
    value = conv(g)
    for _ in range(g.number(0, 3)):
        op_type = g.choose("Mul", "Add", "Sub", "Div")
        inputs = [value, operand(g, g.shape(value))]
        if g.chance(40 if op_type in {"Mul", "Add"} else 6):
            inputs.reverse()
        value = g.node(op_type, inputs, domain=CUSTOM_DOMAIN if op_type in CUSTOM_OPS and g.chance(5) else "")
        if g.chance(8):
            g.node("Relu", [g.data()])
    return value


def pad_conv(g: Builder) -> str:
    value = g.data(3, 4, 5)
    for _ in range(2 if g.chance(15) else 1):
        value = pad(g, value, spatial=not g.chance(10))
    return conv(g, value)


def scaled(g: Builder) -> str:
    """A number times the data, most often and then plus a number, and perhaps transposed, before a Conv."""
    value = g.data(3, 4, 5)
    rank = len(g.shape(value))
    for op_type in g.choose(("Mul", "Add"), ("Div", "Sub"), ("Mul",), ("Mul", "Sub"), ("Div", "Add"), ("Add", "Mul")):
        number = g.constant(g.noise(g.choose((), (), (1,), (1, 1)))) if g.chance(85) else operand(g, g.shape(value))
        inputs = [value, number]
        if g.chance(40 if op_type in {"Mul", "Add"} else 10):
            inputs.reverse()
        value = g.node(op_type, inputs, keep=g.chance(10))
    if g.chance(50):
        value = transpose(g, value, [0, rank - 1, *range(1, rank - 1)])
    assume(len(g.shape(value)) == rank)
    return conv(g, value)


def global_pool(g: Builder) -> str:
    """A mean over the spatial dimensions, or over nearly those."""
    source = g.data(3, 4, 5)
    rank = len(g.shape(source))
    axes = list(range(2, rank)) if g.chance(75) else g.some_axes(rank) or [1]
    axes = [axis - rank if g.chance(30) else axis for axis in axes]
    keep: dict[str, Any] = g.choose({}, {}, {"keepdims": 1}, {"keepdims": 0})
    assume(0 not in g.shape(source))
    if g.opset >= AXES_AS_INPUT:
        return g.node("ReduceMean", [source, g.constant(np.array(axes, np.int64))], **keep)
    return g.node("ReduceMean", [source], axes=axes, **keep)


def classifier(g: Builder) -> str:
    """A convolution of what pooling leaves, flattened."""
    source = g.data(4)
    assume(0 not in g.shape(source))
    pooled = source if g.chance(10) else g.node("GlobalAveragePool", [source])
    value = conv(g, pooled, plain=g.chance(70))
    batch, channels = g.shape(value)[:2]
    if g.chance(15):
        return g.node("Flatten", [value])
    size = int(np.prod(g.shape(value)[1:]))
    target = g.choose([0, size], [0, -1], [-1, size], [0, size], [batch, size], [0, channels, -1], [-1])
    return g.node("Reshape", [value, g.constant(np.array(target, np.int64))])


def gate(g: Builder, source: str = "") -> str:
    """Hard sigmoid in its parts, exact or wrong in one of them; other element types among them."""
    source = source or g.data()
    dtype: Any = g.choose(np.float32, np.float32, np.float32, np.float32, np.float64, np.float16, np.int32)
    if dtype is not np.float32:
        source = g.node("Cast", [source], keep=False, to=int(_onnx_type(dtype)))
    shift, top, scale = g.choose((3, 6, 1 / 6), (3, 6, 1 / 6), (1, 4, 0.25), (0, 1, 1), (2.5, 5, 0.2), (900, 3, 1 / 3))
    low: float = 0
    if g.chance(15):
        shift, low, top, scale = g.choose(
            (shift, low, top, scale * 1.001),
            (shift, low, top + 1, scale),
            (shift, -1, top, scale),
            (shift, low, -top, -scale),
        )
    by_division = g.chance(40) or dtype is np.int32
    scalars = [g.choose((1,), (1, 1, 1, 1, 1)) if g.chance(12) else () for _ in range(2)]
    pieces = [np.full(scalars[0], shift, dtype), np.full(scalars[1], 1 / scale if by_division else scale, dtype)]
    added = [source, g.constant(pieces[0])]
    value = g.node("Add", added[::-1] if g.chance(40) else added, keep=dtype is np.float32 and g.chance(10))
    bounds = [g.constant(dtype(low)), g.constant(dtype(top))]
    if g.chance(6):
        bounds = g.choose(["", bounds[1]], [bounds[0]], [])
    value = g.node("Clip", [value, *bounds], keep=dtype is np.float32 and g.chance(10))
    scaled = [value, g.constant(pieces[1])]
    if not by_division and g.chance(40):
        scaled.reverse()
    value = g.node("Div" if by_division else "Mul", scaled, keep=False)
    if g.chance(50):
        value = g.node("Mul", g.choose([source, value], [value, source]), keep=False)
    if dtype is not np.float32:
        return g.node("Cast", [value], to=1)
    g.made.append(value)
    return value


def _onnx_type(dtype: Any) -> int:
    return {np.float64: 11, np.float16: 10, np.int32: 6, np.float32: 1}[dtype]


def swish(g: Builder) -> str:
    source = g.data()
    sixth = {"alpha": 1 / 6, "beta": 0.5}
    attributes = g.choose(sixth, sixth, sixth, {}, {"alpha": 1 / 6}, {"alpha": 1 / 6, "beta": 0.4}, {"beta": 0.5})
    gated = g.node("HardSigmoid", [source], keep=g.chance(20), **attributes)
    other = g.data() if g.chance(10) else source
    assume(g.shape(other) == g.shape(source))
    return g.node("Mul", g.choose([other, gated], [gated, other]))


def gated_conv(g: Builder) -> str:
    """A hard sigmoid behind a convolution, which now and then something else reads too."""
    value = conv(g)
    if g.chance(10):
        unary(g, value)
    slope = g.choose({}, {"alpha": 1 / 6}, {"alpha": -0.5}, {"alpha": 0.25, "beta": 0.1})
    gated = g.node("HardSigmoid", [value], **slope)
    return g.node("Mul", [value, gated]) if g.chance(15) else gated


def sandwich(g: Builder) -> str:
    """A Transpose, a few nodes that it could pass, and most often its inverse."""
    source = g.data(3, 4) if g.chance(80) else g.data()
    rank = len(g.shape(source))
    perm = g.permutation(rank)
    value = transpose(g, source, perm)
    for _ in range(g.number(0, 3)):
        middle = g.choose(unary, unary, binary, binary, reduce, reduce, pad, pad, concat, concat, branch, custom)
        value = middle(g, value)
    if len(g.shape(value)) == rank and g.chance(75):
        inverse = [int(axis) for axis in np.argsort(perm)]
        value = transpose(g, value, inverse)
    elif g.chance(50):
        value = static_reshape(g, value)
    else:
        value = transpose(g, value)
    return value


def crossed(g: Builder) -> str:
    """One value, transposed in two ways that may give the same shape, joined again."""
    source = g.data(2, 3, 4)
    first, second = (transpose(g, source, g.permutation(len(g.shape(source)))) for _ in range(2))
    assume(broadcast(g.shape(first), g.shape(second)))
    return transpose(g, g.node(g.choose("Sub", "Mul"), [first, second]))


def branch(g: Builder, source: str) -> str:
    """Read twice, joined again."""
    return g.node(g.choose("Add", "Mul"), [source, unary(g, source)])


def computed_reshape(g: Builder) -> str:
    """The target from the input's own shape, as converters write Flatten; or from what is only nearly that."""
    source = g.data(2, 3, 4)
    shape = g.shape(source)
    assume(0 not in shape)
    whole = g.node("Shape", [g.data() if g.chance(10) else source], keep=False)
    rest = int(np.prod(shape[1:]))
    doubled = rest % 2 == 0 and g.chance(20)
    index = np.array([0], np.int64)
    if g.chance(50):
        batch = g.node("Gather", [whole, g.constant(index)], keep=False, axis=0)
    else:
        batch = g.node("Slice", [whole, g.constant(index), g.constant(index + 1)], keep=False)
    if g.chance(20):
        batch = g.node("Cast", [g.node("Cast", [batch], keep=False, to=6)], keep=False, to=7)
    if doubled:
        batch, rest = g.node("Mul", [batch, g.constant(index + 2)], keep=False), rest // 2
    tail = g.choose([rest], [rest], [-1], [shape[1], -1], [rest, 1])
    parts = [batch, g.constant(np.array(tail, np.int64))]
    if g.chance(15):
        parts.reverse()
    target = g.node("Concat", parts, keep=False, axis=0)
    if g.chance(10):
        target = g.constant(np.array([shape[0], rest], np.int64))
    attributes = where(g.opset >= 14 and g.chance(10), allowzero=1)
    domain = CUSTOM_DOMAIN if g.chance(6) else ""
    return g.node("Reshape", [source, target], domain=domain, **where(not domain, **attributes))


def constant_expression(g: Builder) -> str:
    """Data joined with something that can be computed beforehand."""
    source = g.data()
    shape = g.shape(source)
    value = operand(g, shape)
    for _ in range(g.number(1, 3)):
        op_type = g.choose("Abs", "Neg", "Identity", "Transpose", "Cast", "Concat", "Add", "Reshape", "Max", "custom")
        if op_type == "Cast":
            value = g.node("Cast", [value], keep=False, to=1)
        elif op_type in {"Concat", "Max"}:
            assume(g.shape(value) or op_type == "Max")
            value = g.node(op_type, [value], keep=False, **where(op_type == "Concat", axis=0))
        elif op_type == "Add":
            value = g.node("Add", [value, g.constant(np.float32(2))], keep=False)
        elif op_type == "Reshape":
            value = g.node("Reshape", [value, g.constant(np.array(g.shape(value), np.int64))], keep=False)
        elif op_type == "custom":
            value = g.node("Relu", [value], keep=False, domain=CUSTOM_DOMAIN)
        else:
            value = g.node(op_type, [value], keep=False)
    if g.chance(50) and broadcast(g.shape(value), shape):
        return g.node(g.choose("Add", "Mul"), [value, source])
    g.made.append(value)
    return value


def shape_arithmetic(g: Builder) -> str:
    """Numbers that come from the input's shape, as data."""
    source = "x" if g.chance(50) else g.data(1, 2, 3, 4)
    value = g.node("Size" if g.chance(10) else "Shape", [source], keep=False)
    for _ in range(g.number(0, 4)):
        value = _shape_step(g, value)
    if g.chance(15) and len(g.shape(value)) == 1 and g.arrays[value].min(initial=1) > 0:
        return g.node("Expand", [g.constant(g.noise([1])), value])
    return g.node("Cast", [value], to=1)


def _shape_step(g: Builder, value: str) -> str:
    """One more node, where one of the drawn kind is legal."""
    shape = g.shape(value)
    operands: dict[str, list[list[int]]] = {"Abs": [], "Identity": [], "Add": [[1]], "Unsqueeze": [[0]]}
    operands["Reshape"] = [g.choose([-1], [1, -1], [-1, 1], [-1, 1])]
    if shape:
        operands["Slice"] = [[g.number(-2, 1)], [g.number(1, 3)]]
    if len(shape) == 1:
        operands["Concat"] = [[2, 3]]
    if 1 in shape:
        operands["Squeeze"] = [[shape.index(1)]]
    kind = g.choose(*operands, "Reshape", "Gather", "Gather")
    if kind in operands:
        constants = [g.constant(np.array(numbers, np.int64)) for numbers in operands[kind]]
        value = g.node(kind, [value, *constants], keep=False, **where(kind == "Concat", axis=0))
    if kind == "Gather" or (kind == "Reshape" and g.chance(60)):
        return _gather(g, value)
    return value


def _gather(g: Builder, value: str) -> str:
    shape = g.shape(value)
    if not shape or not shape[0]:
        return value
    index = g.number(-shape[0], shape[0] - 1)
    indices = g.choose([index], [index, index], index, [[index]], [0, index])
    operand = g.constant(np.array(indices, np.int64))
    return g.node("Gather", [value, operand], keep=False, **where(g.chance(60), axis=0))


ALL = (
    *(unary, binary, conv, affine, pad, pad_conv, gate, swish, gated_conv, scaled, global_pool, classifier, transpose),
    *(sandwich, reduce, concat, static_reshape, computed_reshape, constant_expression, shape_arithmetic, identity),
    *(split, custom, other, crossed),
)
