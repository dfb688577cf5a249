"""A float32 network in f16, but for the nodes whose numbers f16 cannot hold.

onnxruntime.transformers.float16 would do for a network without such nodes. Between two neighbours that stay in float32
it (onnxruntime 1.31) rounds to f16 and back, so that what overflows still does; it gives two of them that read the same
tensor two Casts of one name; and it leaves its Casts at the end of the file, unsorted, which onnx's checker refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

from mbexport.errors import ArtifactError
from mbexport.quantize.magnitudes import PRODUCTS, constants, float_tensors, magnitudes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from mbexport.quantize.magnitudes import Magnitudes

LARGEST = float(np.finfo(np.float16).max) / 4
"""Numbers and sums up to this become f16: other pictures may make them four times as large as those given."""
SMALLEST = 2.0**-10
"""Tensors with a lower peak stay in float32: most numbers are under it, and f16's full precision ends at 2^-14."""
MOST_LOST = 2.0**-9
"""Constants may lose four times what f16 takes from a number in its normal range at worst."""
_TOO_SMALL_RESULTS = {"Softmax", "LogSoftmax"}
"""Their small probabilities are far below f16's smallest number, whatever the largest is."""
_SUFFIX: dict[int, str] = {TensorProto.FLOAT: "/f32", TensorProto.FLOAT16: "/f16"}


@dataclass(frozen=True)
class Halved:
    """A network in f16, its inputs and outputs as they were."""

    model: onnx.ModelProto
    islands: list[str]
    """The names of the nodes left in float32, in the graph's order."""


def half(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> Halved:
    """The float32 ``model`` in f16, where the numbers that it makes of ``inputs`` (pictures first) allow.

    Inputs, outputs, opset and metadata stay as they are. The same arguments give the same bytes.

    Raises:
        ArtifactError: the network holds or makes numbers that are not finite, has a node with a body (If, Loop, Scan),
            or ONNX Runtime cannot load it.
        EngineError: ONNX Runtime cannot run it.
        MissingPackageError: onnxruntime is not installed.
    """
    bodies = {node.op_type for node in model.graph.node if any(attribute.HasField("g") for attribute in node.attribute)}
    if bodies:
        raise ArtifactError(f"expected a graph without bodies to make f16 of, not one with {', '.join(sorted(bodies))}")
    floats = float_tensors(model)
    wide = _Choice(model, floats).wide(magnitudes(model, inputs))
    islands = [node.name or node.output[0] for node in model.graph.node if node.output[0] in wide]
    return Halved(_Writer(model, floats, wide).written(), islands)


class _Choice:
    """Which nodes stay in float32, each known by its first output."""

    def __init__(self, model: onnx.ModelProto, floats: set[str]) -> None:
        self._nodes = list(model.graph.node)
        self._flowing = floats - set(constants(model))
        self._floats = floats
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._inputs = {value.name for value in model.graph.input}
        self._outputs = {value.name for value in model.graph.output}

    def wide(self, found: Magnitudes) -> set[str]:
        wide = {node.output[0] for node in self._nodes if self._needs_float(node, found)}
        wide |= self._before_products()
        while added := self._between(wide) - wide:
            wide |= added
        return wide

    def _needs_float(self, node: onnx.NodeProto, found: Magnitudes) -> bool:
        first = node.output[0]
        if node.op_type in _TOO_SMALL_RESULTS or not _can_be_half(node, self._opsets, self._floats):
            return True
        read_and_made = [name for name in chain(node.input, node.output) if name in self._floats]
        largest = max((found.peaks[name] for name in read_and_made), default=0.0)
        if max(largest, found.sums.get(first, 0.0)) > LARGEST or found.losses.get(first, 0.0) > MOST_LOST:
            return True
        return any(0 < found.peaks[name] < SMALLEST for name in read_and_made if name in self._flowing)

    def _before_products(self) -> set[str]:
        """What prepares the input: a Cast behind it is no more than one before it."""
        prepared, found = set(self._inputs), set()
        for node in self._nodes:
            read, made = self._flowing_through(node)
            if (read or made) and node.op_type not in PRODUCTS and prepared.issuperset(read):
                prepared |= made
                found.add(node.output[0])
        return found

    def _between(self, wide: set[str]) -> set[str]:
        """What is no product and stands among nothing but float32: it would need a Cast on each side."""
        float32 = self._inputs | {name for node in self._nodes if node.output[0] in wide for name in node.output}
        read_in_half = {name for node in self._nodes if node.output[0] not in wide for name in node.input}
        found = set()
        for node in self._nodes:
            read, made = self._flowing_through(node)
            if read and node.op_type not in PRODUCTS and read <= float32 and not made & read_in_half:
                found.add(node.output[0])
        return found

    def _flowing_through(self, node: onnx.NodeProto) -> tuple[set[str], set[str]]:
        """The float32 tensors, constants left out, that a node reads and makes."""
        return self._flowing.intersection(node.input), self._flowing.intersection(node.output)


class _Writer:
    """Writes the network with each node in its type, and a Cast where a tensor is read in another than it was made."""

    def __init__(self, model: onnx.ModelProto, floats: set[str], wide: Collection[str]) -> None:
        self._model = model
        self._floats = floats
        self._wide = wide
        self._constants = constants(model)
        self._outputs = {value.name for value in model.graph.output}
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers = [tensor for tensor in model.graph.initializer if tensor.name not in self._constants]
        self._taken = {name for node in model.graph.node for name in chain(node.input, node.output)}
        self._held: dict[tuple[str, int], str] = {
            (value.name, TensorProto.FLOAT): value.name for value in model.graph.input
        }
        """Tensor of the float32 network and type -> its name here."""

    def written(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            self._write(node)
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(self._nodes)
        model.graph.initializer.extend(self._initializers)
        return model

    def _write(self, node: onnx.NodeProto) -> None:
        kind = TensorProto.FLOAT if node.output[0] in self._wide else TensorProto.FLOAT16
        fixed = _float_only(node, self._opsets)
        written = onnx.NodeProto()
        written.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in self._floats:
                written.input[place] = self._read(name, TensorProto.FLOAT if place in fixed else kind)
        self._nodes.append(written)
        for place, name in enumerate(node.output):
            if name in self._floats:
                is_half_output = kind == TensorProto.FLOAT16 and name in self._outputs
                written.output[place] = self._new_name(name, kind) if is_half_output else name
                self._held[name, kind] = written.output[place]
                if is_half_output:
                    self._cast(name, TensorProto.FLOAT, name)

    def _read(self, name: str, kind: int) -> str:
        """The tensor's name in that type; the first reader in it brings the Cast or the constant."""
        if (name, kind) not in self._held:
            if name in self._constants:
                self._add_constant(name, kind)
            else:
                self._cast(name, kind, self._new_name(name, kind))
        return self._held[name, kind]

    def _add_constant(self, name: str, kind: int) -> None:
        used = any(held == name for held, _ in self._held)
        self._held[name, kind] = self._new_name(name, kind) if used else name
        array = self._constants[name].astype(helper.tensor_dtype_to_np_dtype(kind))
        self._initializers.append(numpy_helper.from_array(array, self._held[name, kind]))

    def _cast(self, name: str, kind: int, result: str) -> None:
        (source,) = (held for (tensor, _), held in self._held.items() if tensor == name)
        self._nodes.append(helper.make_node("Cast", [source], [result], name=f"{name}{_SUFFIX[kind]}/Cast", to=kind))
        self._held[name, kind] = result

    def _new_name(self, name: str, kind: int) -> str:
        new = name + _SUFFIX[kind]
        while new in self._taken:
            new += "_"
        self._taken.add(new)
        return new


def _can_be_half(node: onnx.NodeProto, opsets: Mapping[str, int], floats: Collection[str]) -> bool:
    """Whether the operator is defined in f16, and its results are of the type of what it reads."""
    schema = _schema(node, opsets)
    if schema is None:
        return False
    half_types = {
        found.type_param_str for found in schema.type_constraints if "tensor(float16)" in found.allowed_type_strs
    }
    read, made = _formal_types(schema.inputs, node.input), _formal_types(schema.outputs, node.output)
    given = {kind for kind, name in zip(read, node.input, strict=True) if name in floats}
    wanted = {kind for kind, name in zip(made, node.output, strict=True) if name in floats}
    return wanted <= given & half_types and given - half_types <= {"tensor(float)"}


def _float_only(node: onnx.NodeProto, opsets: Mapping[str, int]) -> set[int]:
    """The places of the inputs that are float32 by definition, such as Resize's scales."""
    schema = _schema(node, opsets)
    read = _formal_types(schema.inputs, node.input) if schema is not None else []
    return {place for place, kind in enumerate(read) if kind == "tensor(float)"}


def _schema(node: onnx.NodeProto, opsets: Mapping[str, int]) -> Any:
    try:
        return defs.get_schema(node.op_type, opsets[node.domain], node.domain)
    except defs.SchemaError:
        return None


def _formal_types(formal: Sequence[Any], names: Sequence[str]) -> list[str]:
    """The type, or type variable, of each input or output; the last formal one may stand for many."""
    return [formal[min(place, len(formal) - 1)].type_str for place in range(len(names))]
