"""Run one pass and keep its result only where the interface and the outputs stay the same."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mbexport.accuracy.exposing import expose_all
from mbexport.compare import Comparison, centred_log, compare, is_flat
from mbexport.graph import tools
from mbexport.manifest import PassReport
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class PassStep:
    """One pass of a sequence as it went, for whoever watches; ``report`` alone is kept."""

    number: int
    """From 1."""
    total: int
    report: PassReport
    ops_before: dict[str, int]
    """Operator -> count, in the graph that the pass was given."""
    ops_after: dict[str, int]
    """The same in the graph that it made, whether that was kept or not; where it crashed, as far as it got."""
    error: Exception | None = None
    """What it raised, with its traceback."""

    @property
    def ops(self) -> dict[str, int]:
        """The same in the graph that the next pass gets."""
        return self.ops_after if self.report.modified else self.ops_before


@dataclass(frozen=True)
class Checked:
    """A graph, its outputs on the probes, and what brings it back once a pass has been at it."""

    model: ir.Model
    outputs: Arrays
    contents: tools.Contents

    def restored(self) -> Checked:
        return replace(self, model=self.contents.restored())


@dataclass(frozen=True)
class Guarded:
    """The graph to go on with, and what the pass did."""

    checked: Checked
    report: PassReport
    ops_after: dict[str, int]
    """Of the graph that the pass made, whether that was kept or not."""
    error: Exception | None = None


def run_model(model: ir.Model, feeds: Arrays, *, expose: bool = False) -> dict[str, NDArray[Any]]:
    """Outputs by name from ONNX Runtime on the CPU, its own graph optimizer off so that only this graph is judged.

    With ``expose`` the results of all nodes.
    """
    proto, constants = tools.light_proto(model)
    if expose:
        expose_all(proto)
    return _run(proto, constants, feeds)


def checked(model: ir.Model, feeds: Arrays) -> Checked:
    """The graph as it is before the first pass."""
    contents = tools.Contents(model)
    return Checked(model, _run(contents.proto, contents.constants, feeds), contents)


def guarded(graph_pass: ir.passes.InPlacePass, before: Checked, feeds: Arrays, limit_db: float) -> Guarded:
    """Apply ``graph_pass`` to a graph, which is used up.

    A pass that fails, changes the graph's inputs or outputs, or moves an output by more than ``limit_db`` allows, is
    rolled back and the report says why. One whose precondition does not hold has declined, and nothing went wrong.

    Args:
        graph_pass: the pass.
        before: the graph so far.
        feeds: the probe inputs that it was run on.
        limit_db: the least SQNR against its outputs that counts as rounding.

    Raises:
        MemoryError: the machine's failure and not the pass's.
    """
    name, model = type(graph_pass).__name__, before.model
    ops, interface, classes = census(model), _interface(model), _class_axes(model)
    try:
        if not graph_pass(model).modified:
            return Guarded(_as_it_was(before), PassReport(name=name, modified=False), ops)
        _check_interface(interface, _interface(model))
        after = checked(model, feeds)
        worst = min((_compare(*each, before.outputs, after.outputs, limit_db) for each in classes), key=_standing)
    except MemoryError:
        raise
    except ir.passes.PreconditionError as error:
        return Guarded(_as_it_was(before), PassReport(name=name, modified=False, declined=_first_line(error)), ops)
    except Exception as error:  # noqa: BLE001 - whatever a pass does wrong, the graph before it is still right
        report = PassReport(name=name, modified=False, skipped=_first_line(error))
        return Guarded(before.restored(), report, census(model), error)
    report = PassReport(name=name, modified=worst.passed, sqnr_db=worst.sqnr_db, skipped=worst.reason)
    return Guarded(after if worst else before.restored(), report, census(model))


def census(model: ir.Model) -> dict[str, int]:
    """Operator -> count, the most frequent first."""
    ops = Counter(node.op_type for node in model.graph)
    return dict(sorted(ops.items(), key=lambda item: (-item[1], item[0])))


def _run(proto: onnx.ModelProto, constants: Mapping[str, ir.TensorProtocol], feeds: Arrays) -> dict[str, NDArray[Any]]:
    return run_unoptimized(proto, {**feeds, **{name: tensor.numpy() for name, tensor in constants.items()}})


def _as_it_was(before: Checked) -> Checked:
    """A pass that says that it changed nothing is not taken at its word."""
    return before if tools.Contents(before.model) == before.contents else before.restored()


def _interface(model: ir.Model) -> dict[str, list[str]]:
    """Probes of one shape cannot show that an input lost its dynamic batch; the outputs' shapes they do show."""
    return {
        "inputs": [f"{value.name} {value.dtype}{value.shape}" for value in model.graph.inputs],
        "outputs": [f"{value.name} {value.dtype}" for value in model.graph.outputs],
    }


def _check_interface(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> None:
    for kind, old in before.items():
        if old != after[kind]:
            raise ir.passes.PostconditionError(f"the {kind} were {', '.join(old)} and became {', '.join(after[kind])}")


def _class_axes(model: ir.Model) -> list[tuple[str, int | None]]:
    """Each output, and the axis along which it is a softmax's."""
    makers = [(value.name or "", value.producer()) for value in model.graph.outputs]
    return [
        (name, maker.attributes.get_int("axis", -1) if maker is not None and maker.op_type == "Softmax" else None)
        for name, maker in makers
    ]


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).partition("\n")[0]


def _compare(name: str, axis: int | None, before: Arrays, after: Arrays, limit_db: float) -> Comparison:
    """On logits where the output is a softmax's: probabilities hide errors in all but the likeliest class."""
    old, new = before[name], after[name]
    if not _is_numeric(old) or not _is_numeric(new):
        same = _equal(old, new)
        return Comparison(None, None, None, None, limit_db, same, None if same else f"{name}: other values")
    if axis is not None and old.shape == new.shape:
        old, new = (np.moveaxis(array, axis, -1) for array in (old, new))
        if not is_flat(old):
            old, new = centred_log(old), centred_log(new)
    found = compare(old, new, threshold_db=limit_db)
    return found or replace(found, reason=f"{name}: {found.reason}")


def _is_numeric(output: Any) -> bool:
    """Strings are not, nor are sequences, which come as lists."""
    return isinstance(output, np.ndarray) and output.dtype.kind in "biuf"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(np.array_equal(one, other))


def _standing(comparison: Comparison) -> tuple[bool, float]:
    """From worst to best; bit-equal is best."""
    return comparison.passed, math.inf if comparison.sqnr_db is None else comparison.sqnr_db
