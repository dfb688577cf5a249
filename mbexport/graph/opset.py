"""Opsets newer than those that tf2onnx writes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, version_converter
from onnx_ir.passes import common

from mbexport.errors import EngineError, SpecError
from mbexport.runtimes.ort_calls import engine_errors, import_onnxruntime, silent_options
from mbexport.spec import MAX_NATIVE_OPSET, MIN_OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_IR_VERSION = 8
"""The file format of opset 15 to 18; every runtime release of the last years reads it."""
_RELEASED_ONLY = "ALLOW_RELEASED_ONNX_OPSET_ONLY"
"""With "0" ONNX Runtime loads opsets that are still under development, with a warning instead of a refusal."""


class RaiseOpset(ir.passes.InPlacePass):
    """Bring the graph to a newer opset with the onnx package's converter.

    onnxscript's converter ends earlier (at 25 in 0.7, where onnx 1.23 knows 28).
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model.graph = ir.from_proto(version_converter.convert_version(ir.to_proto(model), self.opset)).graph
        model.ir_version = max(model.ir_version, ir_version(self.opset))
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        found = model.graph.opset_imports.get("")
        if found != self.opset:
            raise ir.passes.PostconditionError(f"the opset is {found} and not {self.opset}")


def ir_version(opset: int) -> int:
    """The version of the file format for an opset: the least that knows it, but not below 8."""
    least: int = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    return max(least, LEAST_IR_VERSION)


def check_opset(opset: int) -> None:
    """Refuse an opset that the installed ONNX Runtime does not load without a warning.

    Raises:
        SpecError: it is too new; the message names the newest.
        MissingPackageError: ONNX Runtime is not installed.
    """
    if opset <= MAX_NATIVE_OPSET:
        return
    newest = newest_opset()
    if opset > newest:
        raise SpecError(
            f"opset must lie between {MIN_OPSET} and {newest}, not {opset}: "
            f"{newest} is the newest that the installed onnx and onnxruntime both know"
        )


def newest_opset() -> int:
    """The newest opset that the onnx package knows and ONNX Runtime loads without a warning.

    ONNX Runtime has no function that says so, and a table would age; it is shown a model of one node for each opset,
    which takes it less than a millisecond.
    """
    newest = MAX_NATIVE_OPSET
    with _released_opsets_only():
        while newest < onnx.defs.onnx_opset_version() and _loads(newest + 1):
            newest += 1
    return newest


def _loads(opset: int) -> bool:
    ort = import_onnxruntime()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version(opset))
    try:
        with engine_errors("probe"):
            ort.InferenceSession(model.SerializeToString(), silent_options(ort), providers=["CPUExecutionProvider"])
    except EngineError:
        return False
    return True


@contextmanager
def _released_opsets_only() -> Iterator[None]:
    """What ONNX Runtime would warn of, it refuses."""
    before = os.environ.get(_RELEASED_ONLY)
    os.environ[_RELEASED_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RELEASED_ONLY]
        else:
            os.environ[_RELEASED_ONLY] = before
