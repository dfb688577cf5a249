"""Small random ONNX graphs for the passes' property tests: Hypothesis strategies that hit, or nearly hit, each pattern.

Every value carries the array that it has on the example input, so each motif can choose attributes that are legal.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume, reject
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_pad import Pad_18

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Motif = Callable[["Builder"], str]

CUSTOM_DOMAIN = "test.custom"
CUSTOM_OPS = ("Transpose", "Reshape", "Conv", "Pad", "Clip", "Mul", "Add", "HardSigmoid", "Identity", "Relu")
LABELS = ("", "op", "conv", "block/op__7", "block/batchnorm/mul__3")
# Names that passes, onnx-ir's name authority and onnxscript would give to what they make.
_SUFFIXES = (
    *("folded_kernel", "folded_bias", "scaled_kernel", "offset", "gate_kernel", "gate_bias", "matrix", "flat"),
    *("shape", "pads", "axes", "three", "0", "Relu", "Conv", "kernel"),
)
CLASHING = (
    *(f"{label}/{suffix}" for label in LABELS[:3] for suffix in _SUFFIXES),
    *("val_0", "val_1", "val_2", "x/replaced", "v2/replaced", "v3/replaced", "c1/moved", "c2/moved", "graph/Relu"),
)
NATIVE_OPSETS = range(13, 19)
AXES_AS_INPUT = 18  # from here on Pad and most reductions take their axes as an input


def _custom(op_type: str) -> type[OpRun]:
    """An operator of another domain that shares its name with ONNX's and does something else."""

    def _run(_self: OpRun, x: Array, *others: Array, **_attributes: Any) -> tuple[Array]:
        """What changes with each element's place, and with the value of each further input."""
        place = np.arange(x.size, dtype=np.float64).reshape(x.shape) % 7 - 3
        return ((x * place + sum(float(np.sum(array)) for array in others)).astype(x.dtype),)

    return type(op_type, (OpRun,), {"op_domain": CUSTOM_DOMAIN, "_run": _run})


# Odd and unequal sizes, one and many channels; the last dimensions of size 1 are what pooling leaves.
INPUT_SHAPES = (
    *((2, 4, 5, 3), (1, 3, 6, 5), (2, 2, 4, 4), (1, 1, 7, 2), (2, 4, 1, 1), (2, 6, 1, 3), (1, 4, 4, 1)),
    *((2, 4, 7), (1, 2, 5), (2, 2, 3, 4, 2), (1, 3, 2, 3, 3), (2, 6), (3, 3, 3, 3), (2, 0, 3, 4)),
)

# An example's outline is Hypothesis's, which shrinks it. The details of each part come from a seed: Hypothesis prefers
# small numbers and would seldom put two rare choices together.
SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


class Pad(Pad_18):
    """With negative pads, which crop: the reference evaluator leaves them to ``numpy.pad``, which refuses them."""

    def _run(self, data: Array, pads: Array, value: Any = None, axes: Any = None, mode: Any = None) -> tuple[Array]:
        which = range(data.ndim) if axes is None else [int(axis) for axis in axes]
        crop = [slice(None)] * data.ndim
        for begin, end, axis in zip(-pads[: len(which)], -pads[len(which) :], which, strict=True):
            crop[axis] = slice(max(int(begin), 0), data.shape[axis] - max(int(end), 0))
        outer = np.maximum(pads, 0).astype(np.int64)
        results: tuple[Array] = super()._run(data[tuple(crop)], outer, value, axes, mode=mode)  # type: ignore[no-untyped-call]
        return results


EVALUATORS: list[type[OpRun]] = [Pad, *(_custom(op_type) for op_type in CUSTOM_OPS)]


def evaluate(proto: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Every output from onnx's reference evaluator, custom operators included."""
    names = [output.name for output in proto.graph.output]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = ReferenceEvaluator(proto, new_ops=EVALUATORS).run(names, feeds)
    return {name: np.asarray(array) for name, array in zip(names, results, strict=True)}


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


@dataclass
class Builder:
    """A graph that grows node by node."""

    opset: int
    rng: np.random.Generator
    clashing: bool = False
    """Whether most names are those that a pass might choose."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)  # what nodes may read as data, newest last

    def chance(self, percent: int) -> bool:
        return bool(self.rng.integers(100) < percent)

    def choose(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def permutation(self, rank: int) -> list[int]:
        return [int(axis) for axis in self.rng.permutation(rank)]

    def some_axes(self, rank: int) -> list[int]:
        """None to all of them, in any order."""
        return self.permutation(rank)[: self.number(0, rank)]

    def noise(self, shape: Sequence[int]) -> Array:
        """Float32 away from 0, so that it may divide."""
        array = self.rng.uniform(0.5, 2.0, shape) * self.rng.choice([-1.0, 1.0], shape)
        return np.asarray(array, np.float32)

    def name(self, stem: str) -> str:
        if self.clashing and self.chance(70):
            clashing = self.choose(*CLASHING)
            if clashing not in self.arrays:
                return str(clashing)
        return f"{stem}{len(self.arrays)}"

    def constant(self, array: Any, *, plain: bool = False) -> str:
        """A constant: an initializer, a Constant node, computed from one, or one that is there already."""
        array = np.asarray(array)
        kind = 0 if plain else self.number(0, 19)
        if kind == 19:
            name = self.node("Constant", [], keep=False, value=numpy_helper.from_array(array))
        elif kind == 18:
            name = self.node("Identity", [self.constant(array, plain=True)], keep=False)
        else:
            for other, known in self.constants.items():
                if kind > 9 and known.dtype == array.dtype and np.array_equal(known, array):
                    return other
            name = self.name("c")
            self.constants[name] = self.arrays[name] = array
        return name

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        *,
        outputs: int = 1,
        domain: str = "",
        keep: bool = True,
        **attributes: Any,
    ) -> str:
        """Append a node, run it, and return its first result; ``keep`` offers the results as data to later nodes."""
        names: list[str] = []
        for _ in range(outputs):
            names.append(self.name("v"))
            self.arrays[names[-1]] = np.zeros(0)
        node = helper.make_node(op_type, inputs, names, name=self.choose(*LABELS), domain=domain, **attributes)
        self._run(node)
        self.nodes.append(node)
        if keep:
            self.made.extend(names)
        return names[0]

    def _run(self, node: onnx.NodeProto) -> None:
        read = {name: self.arrays[name] for name in node.input if name}
        graph = helper.make_graph(
            [node], "one", [_info(name, array) for name, array in read.items()], [_info(name) for name in node.output]
        )
        proto = helper.make_model(graph, opset_imports=_opsets(self.opset), ir_version=10)
        try:
            self.arrays.update(evaluate(proto, read))
        except Exception:  # noqa: BLE001 - sizes that do not suit: another example
            reject()

    def shape(self, value: str) -> tuple[int, ...]:
        return self.arrays[value].shape

    def data(self, *ranks: int) -> str:
        """Float data of one of these ranks, or of any: the newest most often."""
        fitting = [
            value
            for value in self.made
            if self.arrays[value].dtype == np.float32 and (not ranks or self.arrays[value].ndim in ranks)
        ]
        assume(fitting)
        return str(fitting[-1] if self.chance(65) else self.choose(*fitting))


def _opsets(opset: int) -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid("", opset), helper.make_opsetid(CUSTOM_DOMAIN, 1)]


def _info(name: str, array: Array | None = None, shape: Sequence[Any] | None = None) -> onnx.ValueInfoProto:
    if array is None:
        return helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, dtype, array.shape if shape is None else shape)


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
    draft = _proto(g, outputs, overridable, {name: g.shape(name) for name in outputs}, shape)
    feeds = [feed for feed in batches if _runs(draft, feed)]
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
        [_info("x", g.arrays["x"], input_shape), *[_info(name, g.constants[name]) for name in overridable]],
        [_info(name, g.arrays[name], declared[name]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in g.constants.items()],
    )
    return helper.make_model(graph, opset_imports=_opsets(g.opset), ir_version=8)


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


def _runs(proto: onnx.ModelProto, feed: dict[str, Array]) -> bool:
    try:
        evaluate(proto, feed)
    except Exception:  # noqa: BLE001 - a constant need not suit another batch; that is no finding
        return False
    return True
