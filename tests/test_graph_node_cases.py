"""ONNX's own test cases of the operators that the passes touch, through all passes, with ONNX's stored outputs."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.backend.test.case.node
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from mbexport import graph

if TYPE_CHECKING:
    from collections.abc import Sequence


# What onnxscript's constant folding rewrites besides what it can compute; the other names stand in the passes' sources.
FOLDED_BY_ONNXSCRIPT = (
    "Cast",
    "CastLike",
    "Size",
    "Expand",
    "Dropout",
    "Split",
    "Slice",
    "Unsqueeze",
    "Constant",
    "If",
    "ConcatFromSequence",
    "SequenceAt",
    "SequenceConstruct",
    "SplitToSequence",
)
CANNOT_RUN = {
    "test_if_opt": "onnx's reference evaluator gives an optional sequence one dimension too many",
    "test_bernoulli_expanded": "draws random numbers",
    "test_bernoulli_double_expanded": "draws random numbers",
    "test_bernoulli_seed_expanded": "draws random numbers",
    **dict.fromkeys(
        (
            "test_range_float_type_positive_delta_expanded",
            "test_range_float16_type_positive_delta_expanded",
            "test_range_bfloat16_type_positive_delta_expanded",
            "test_range_int32_type_negative_delta_expanded",
        ),
        "onnx's reference evaluator gives a Loop's scalar scan outputs one dimension too many",
    ),
}


@dataclass(frozen=True)
class NodeCase:
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    """Inputs and the outputs that they must give."""
    rtol: float
    atol: float


def touched_operators() -> set[str]:
    """Every operator that a pass's source names, and what FoldConstants leaves to onnxscript."""
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    files = Path(graph.__file__).parent.glob("*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    named = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return (named & known) | set(FOLDED_BY_ONNXSCRIPT)


@pytest.fixture(scope="module")
def node_cases() -> dict[str, NodeCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes overflows and quotients by zero on purpose
        loaded = load_model_tests(kind="node")
    touched = touched_operators()
    return {
        case.name: NodeCase(case.model, case.data_sets, case.rtol, case.atol)
        for case in loaded
        if case.model is not None
        and case.data_sets is not None
        and any(node.domain == "" and node.op_type in touched for node in case.model.graph.node)
    }


def array(stored: Any) -> Any:
    if isinstance(stored, onnx.TensorProto):
        return numpy_helper.to_array(stored)
    if isinstance(stored, list):
        return [array(part) for part in stored]
    return stored if stored is None else np.asarray(stored)


def assert_gives(proto: onnx.ModelProto, case: NodeCase, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    names = [value.name for value in proto.graph.input]
    feeds = {name: array(stored) for name, stored in zip(names, inputs, strict=False) if stored is not None}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = ReferenceEvaluator(proto).run(None, feeds)
    assert len(results) == len(outputs)
    for result, stored in zip(results, outputs, strict=True):
        assert_close(result, array(stored), case)


def assert_close(result: Any, expected: Any, case: NodeCase) -> None:
    if expected is None or isinstance(expected, list):
        parts = zip(result or [], expected or [], strict=True)
        for got, wanted in parts:
            assert_close(got, wanted, case)
        return
    got = np.asarray(result)
    assert got.dtype == expected.dtype
    if expected.dtype.kind in "OSU":
        np.testing.assert_array_equal(got, expected)
    elif expected.dtype.kind in "biufc":
        np.testing.assert_allclose(got, expected, rtol=case.rtol, atol=case.atol)
    else:  # bfloat16 and narrower, which NumPy itself does not know
        np.testing.assert_allclose(np.float32(got), np.float32(expected), rtol=case.rtol, atol=case.atol)


def simplified(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model after all passes, and the names of those that refused it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    model, refused = ir.from_proto(copy), []
    for kind in graph.PASSES:
        try:
            kind()(model)
        except ir.passes.PreconditionError:
            refused.append(kind.__name__)
    return ir.to_proto(model), refused


def runs(case: NodeCase) -> bool:
    """Whether the reference evaluator gives the stored outputs for the case as it is."""
    try:
        for inputs, outputs in case.data_sets:
            assert_gives(case.model, case, inputs, outputs)
    except Exception:  # noqa: BLE001 - whatever it is, the test compares the names with those known
        return False
    return True


def between_transposes(proto: onnx.ModelProto, inputs: Sequence[Any], output: Any) -> onnx.ModelProto | None:
    """The same from the first input to the only output, both with their dimensions reversed; the others constant.

    None where the case has several outputs, a body, or something else than tensors of two dimensions and more.
    """
    tensors = [array(stored) for stored in [output, *inputs]]
    bodies = any(attribute.HasField("g") for node in proto.graph.node for attribute in node.attribute)
    complete = len(inputs) == len(proto.graph.input) > 0 and len(proto.graph.output) == 1
    if bodies or not complete or not all(isinstance(tensor, np.ndarray) for tensor in tensors):
        return None
    result, first, *others = tensors
    if min(result.ndim, first.ndim) < 2:
        return None
    (source, *rest), (target,) = proto.graph.input, proto.graph.output
    body = helper.make_graph(
        [
            _reversal("outer/in", source.name, first.ndim),
            *proto.graph.node,
            _reversal(target.name, "outer/out", result.ndim),
        ],
        "between",
        [helper.make_tensor_value_info("outer/in", source.type.tensor_type.elem_type, first.T.shape)],
        [helper.make_tensor_value_info("outer/out", target.type.tensor_type.elem_type, result.T.shape)],
        [numpy_helper.from_array(tensor, value.name) for value, tensor in zip(rest, others, strict=True)],
    )
    return helper.make_model(body, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _reversal(source: str, result: str, rank: int) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], [result], perm=list(range(rank))[::-1])


def test_only_named_cases_cannot_run(node_cases: dict[str, NodeCase]) -> None:
    failing = {name for name, case in node_cases.items() if not runs(case)}
    assert failing == CANNOT_RUN.keys() & node_cases.keys()


def test_cases_named_in_onnxs_own_sources_are_among_them(node_cases: dict[str, NodeCase]) -> None:
    """An independent count: the names that stand in the source files that are named after the operators."""
    folder = Path(onnx.backend.test.case.node.__file__).parent
    files = {file.stem.replace("_", ""): file for file in folder.glob("*.py")}
    sources = [files[name.lower()].read_text(encoding="utf-8") for name in touched_operators() if name.lower() in files]
    named = {name for source in sources for name in re.findall(r'name="(test_\w+)"[,)\n]', source)}
    assert len(named) > 200
    assert named <= node_cases.keys()


def test_simplified_cases_give_the_stored_outputs(node_cases: dict[str, NodeCase]) -> None:
    unrefused = 0
    for name in node_cases.keys() - CANNOT_RUN.keys():
        case = node_cases[name]
        proto, refused = simplified(case.model)
        unrefused += not refused
        for inputs, outputs in case.data_sets:
            assert_gives(proto, case, inputs, outputs)
    # The others have an opset before 13 or bodies.
    assert unrefused > 0.9 * len(node_cases)


def test_simplified_cases_between_transposes_give_the_stored_outputs(node_cases: dict[str, NodeCase]) -> None:
    transposes = Counter[int]()
    for name in node_cases.keys() - CANNOT_RUN.keys():
        case = node_cases[name]
        inputs, outputs = case.data_sets[0]
        wrapped = between_transposes(case.model, inputs, outputs[0])
        if wrapped is not None:
            proto, _ = simplified(wrapped)
            assert_gives(proto, case, [array(inputs[0]).T], [array(outputs[0]).T])
            transposes[sum(node.op_type == "Transpose" for node in proto.graph.node)] += 1
    assert transposes[0] > 100  # not only declined
