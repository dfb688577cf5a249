"""Opsets above those that tf2onnx writes, and the question how far the installed ONNX Runtime goes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, version_converter

from mbexport.errors import ConversionError, SpecError
from mbexport.graph import simplify
from mbexport.graph.opset import RaiseOpset, check_opset, ir_version, newest_opset
from tests.graphs import assert_same, model, noise, run

LOAD = """
import sys
import onnxruntime
from onnx import TensorProto, helper
version, ir_version = map(int, sys.argv[1:])
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=ir_version)
onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
"""


def stderr_of_loading(version: int) -> str:
    """What ONNX Runtime says at its default severity, exceptions included."""
    command = [sys.executable, "-c", LOAD, str(version), str(ir_version(version))]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_newest_opset_loads_in_silence_and_the_next_does_not() -> None:
    newest = newest_opset()
    assert newest >= 18
    assert stderr_of_loading(newest) == ""
    if newest < onnx.defs.onnx_opset_version():
        assert stderr_of_loading(newest + 1) != ""


def test_an_opset_that_is_only_warned_of_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = newest_opset()
    monkeypatch.setenv("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")
    if strict < onnx.defs.onnx_opset_version():
        assert "guarantees" in stderr_of_loading(strict + 1).replace("*", "")
    assert newest_opset() == strict


def test_refusal_names_the_newest() -> None:
    newest = newest_opset()
    check_opset(newest)
    check_opset(13)
    with pytest.raises(SpecError, match=rf"between 13 and {newest}, not {newest + 1}: "):
        check_opset(newest + 1)


@pytest.mark.parametrize(("version", "least"), [(13, 8), (18, 8), (19, 9), (20, 9), (21, 10), (22, 10), (23, 11)])
def test_ir_version_fits_the_opset(version: int, least: int) -> None:
    """From the table of releases in onnx's Versioning.md; 8 for everything that is older."""
    assert ir_version(version) == least


def small(version: int) -> ir.Model:
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], name="conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["c"], ["h"], name="act/HardSwish"),
        helper.make_node("ReduceMean", ["h", "axes"], ["y"], name="pool/ReduceMean"),
    ]
    constants = {"kernel": noise([4, 3, 3, 3]), "axes": np.array([2, 3])}
    return model(nodes, ["batch", 3, 8, 8], {"y": ["batch", 4, 1, 1]}, constants, version)


def test_raising_changes_the_opset_and_nothing_else() -> None:
    graph, x = small(18), noise([2, 3, 8, 8], 1)
    before, proto = run(graph, x), ir.to_proto(graph)
    assert RaiseOpset(21)(graph).modified
    after = ir.to_proto(graph)
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", 21)]
    assert list(after.graph.node) == list(proto.graph.node)
    assert list(after.graph.initializer) == list(proto.graph.initializer)
    assert (list(after.graph.input), list(after.graph.output)) == (list(proto.graph.input), list(proto.graph.output))
    onnx.checker.check_model(after, full_check=True)
    assert_same(before, run(graph, x))


def test_an_operator_whose_form_changed_is_rewritten() -> None:
    """ReduceMean takes its axes as an input from 18 on."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], name="pool/ReduceMean", axes=[1])]
    graph = model(nodes, [2, 3], {"y": [2, 1]}, opset=17)
    before = run(graph, noise([2, 3]))
    RaiseOpset(20)(graph)
    assert_same(before, run(graph, noise([2, 3])))


def test_an_opset_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on would leave a file of another opset than was asked for."""

    def refuse(_model: onnx.ModelProto, _version: int) -> onnx.ModelProto:
        raise RuntimeError("no adapter for Conv")

    monkeypatch.setattr(version_converter, "convert_version", refuse)
    feeds = {"x": noise([2, 3, 8, 8])}
    with pytest.raises(ConversionError, match=r"^the graph cannot be brought to opset 20: no adapter for Conv$"):
        simplify(ir.to_proto(small(18)), feeds, limit_db=100, opset=20)


def test_a_converter_that_moves_the_result_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = version_converter.convert_version

    def wrong(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        converted = honest(proto, version)
        converted.graph.node[1].op_type = "Relu"
        return converted

    monkeypatch.setattr(version_converter, "convert_version", wrong)
    with pytest.raises(ConversionError, match="opset 20: y: SQNR"):
        simplify(ir.to_proto(small(18)), {"x": noise([2, 3, 8, 8])}, limit_db=100, opset=20)
