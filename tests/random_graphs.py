"""A small ONNX graph that grows at random, and what it computes, for the passes' property tests.

Every value carries the array that it has on the example input, so that attributes can be chosen that are legal.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from hypothesis import assume, reject
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_pad import Pad_18

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

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
            [node],
            "one",
            [value_info(name, array) for name, array in read.items()],
            [value_info(name) for name in node.output],
        )
        proto = helper.make_model(graph, opset_imports=opset_imports(self.opset), ir_version=10)
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


def opset_imports(opset: int) -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid("", opset), helper.make_opsetid(CUSTOM_DOMAIN, 1)]


def value_info(name: str, array: Array | None = None, shape: Sequence[Any] | None = None) -> onnx.ValueInfoProto:
    if array is None:
        return helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, dtype, array.shape if shape is None else shape)
