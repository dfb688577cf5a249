"""The Hypothesis strategy that makes whole models out of random parts, and the inputs to judge them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.random_graphs import NATIVE_OPSETS, Builder, evaluate, opset_imports, value_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.random_graphs import Array

    Motif = Callable[[Builder], str]

# Odd and unequal sizes, one and many channels; the last dimensions of size 1 are what pooling leaves.
INPUT_SHAPES = (
    *((2, 4, 5, 3), (1, 3, 6, 5), (2, 2, 4, 4), (1, 1, 7, 2), (2, 4, 1, 1), (2, 6, 1, 3), (1, 4, 4, 1)),
    *((2, 4, 7), (1, 2, 5), (2, 2, 3, 4, 2), (1, 3, 2, 3, 3), (2, 6), (3, 3, 3, 3), (2, 0, 3, 4)),
)

CANCELLED = 1e-2  # of the largest: what is left of float32's rounding is then within the comparison's tolerance

# An example's outline is Hypothesis's, which shrinks it. The details of each part come from a seed: Hypothesis prefers
# small numbers and would seldom put two rare choices together.
SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@dataclass(frozen=True)
class Case:
    """A model and the inputs to judge it on: other batches and overridden initializers, where the model takes them."""

    proto: onnx.ModelProto
    feeds: list[dict[str, Array]]

    def model(self) -> ir.Model:
        """A copy for a pass to work on: onnx-ir writes names of initializers through to the proto that it reads."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        return ir.from_proto(copy)

    @property
    def has_dead_nodes(self) -> bool:
        """Whether nobody reads some node's results: to a rule that asks for an only reader that is one more."""
        read = {name for node in self.proto.graph.node for name in node.input}
        read |= {value.name for value in self.proto.graph.output}
        return any(read.isdisjoint(node.output) for node in self.proto.graph.node)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(onnx.printer.to_text(self.proto))


@st.composite
def cases(draw: Any, motifs: tuple[Motif, ...], around: tuple[Motif, ...], opsets: range = NATIVE_OPSETS) -> Case:
    """Graphs of one to five motifs, half of them from ``motifs``, the others from ``around``."""
    g = Builder(draw(st.sampled_from(opsets)), draw(SEEDS))
    g.clashing = g.chance(20)
    g.arrays["x"] = _input(g, draw(st.sampled_from(INPUT_SHAPES)))
    g.made.append("x")
    weighted = (*motifs * (len(around) // len(motifs)), *around)
    parts = st.tuples(st.sampled_from(weighted), SEEDS)
    for motif, g.rng in draw(st.lists(parts, min_size=1, max_size=5)):
        motif(g)
    g.rng = draw(SEEDS)
    return _finish(g)


def _input(g: Builder, shape: Sequence[int]) -> Array:
    """Mostly on both sides of what activations cut off; seldom with what is no number."""
    array = 2 * g.noise(shape)
    if g.chance(5):
        array.reshape(-1)[:: g.number(2, 9)] = g.choose(np.nan, np.inf, -np.inf)
    return array


def _finish(g: Builder) -> Case:
    """Choose the outputs, what may be overridden and what the declared shapes say; make the inputs to judge it on."""
    results = list(dict.fromkeys([g.made[-1], *[value for value in g.made[1:] if g.chance(15)]]))
    assume(results != ["x"])
    outputs = [value for value in results if value != "x"]
    plain = list(g.constants)
    outputs += [name for name in plain if g.chance(4)]
    overridable = [name for name in plain if g.chance(8)]
    shape = g.shape("x")
    dynamic = g.chance(50)
    batches = [{"x": g.arrays["x"]}]
    if dynamic:
        batches.append({"x": _input(g, (3, *shape[1:]))})
    if overridable:
        batches.append({"x": g.arrays["x"]} | {name: _other(g.constants[name]) for name in overridable})
    divisors = {node.input[1] for node in g.nodes if node.op_type == "Div" and not node.domain}
    draft = _proto(g, [*outputs, *divisors.difference(outputs, ["x"])], overridable, {}, shape)
    feeds = [feed for feed in batches if _runs(draft, feed, divisors)]
    assume(feeds and feeds[0] is batches[0])
    declared = _declared(g, draft, feeds, outputs)
    proto = _proto(g, outputs, overridable, declared, ["N", *shape[1:]] if dynamic else shape)
    if g.chance(50) and not overridable:  # the inference takes an overridable initializer for what it is by default
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return Case(proto, feeds)


def _proto(
    g: Builder,
    outputs: Sequence[str],
    overridable: Sequence[str],
    declared: dict[str, Sequence[Any]],
    input_shape: Sequence[Any],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        g.nodes,
        "random",
        [value_info("x", g.arrays["x"], input_shape), *[value_info(name, g.constants[name]) for name in overridable]],
        [value_info(name, g.arrays[name], declared.get(name)) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in g.constants.items()],
    )
    return helper.make_model(graph, opset_imports=opset_imports(g.opset), ir_version=8)


def _declared(
    g: Builder, draft: onnx.ModelProto, feeds: list[dict[str, Array]], outputs: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """What holds on every input: a size that never changes is stated, or not; one that does is a symbol."""
    runs = [(feed["x"].shape[0], evaluate(draft, feed)) for feed in feeds]
    declared: dict[str, Sequence[Any]] = {}
    for name in outputs:
        shapes = [results[name].shape for _, results in runs]
        if g.chance(20) or len({len(shape) for shape in shapes}) > 1:
            declared[name] = [None] * len(shapes[0])
            continue
        sizes: list[Any] = []
        for axis, size in enumerate(shapes[0]):
            if all(shape[axis] == size for shape in shapes):
                sizes.append(size)
            elif all(shape[axis] == batch for (batch, _), shape in zip(runs, shapes, strict=True)):
                sizes.append("N")
            else:
                sizes.append(None)
        declared[name] = sizes
    return declared


def _other(array: Array) -> Array:
    """What a caller might give instead: as different as the element type's usual meaning allows."""
    return array + np.asarray(1.25, array.dtype) if array.dtype.kind == "f" else array[::-1] if array.ndim else array


def _runs(proto: onnx.ModelProto, feed: dict[str, Array], divisors: Iterable[str]) -> bool:
    """Whether the model has an answer that a pass could keep.

    Where it divides by what has cancelled out it has none: rounding, or the sign of a zero, decides the quotient.
    """
    try:
        arrays = feed | evaluate(proto, feed)
    except Exception:  # noqa: BLE001 - a constant need not suit another batch; that is no finding
        return False
    return not any(_has_cancelled(arrays[name]) for name in divisors if name in arrays)


def _has_cancelled(array: Array) -> bool:
    sizes = np.abs(array[np.isfinite(array)])
    return bool(np.any(sizes <= CANCELLED * sizes.max(initial=0.0)))
