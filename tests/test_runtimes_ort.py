from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.errors import MissingDeviceError
from mbexport.runtimes import SessionOptions, resolve_targets
from mbexport.runtimes.ort import OrtRuntime
from mbexport.runtimes.ort_calls import import_onnxruntime, silent_options
from tests.tiny import TinyNetwork, pictures

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.quantities import Mode


def cuda_is_here() -> bool:
    return any(status.target == "ort:cuda" and status.available for status in OrtRuntime().devices())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(TinyNetwork().onnx_model(), path)
    return path


def test_cuda_that_is_not_here_names_the_library_and_the_remedy(model: Path) -> None:
    if cuda_is_here():
        pytest.skip("CUDA is here")
    with pytest.raises(MissingDeviceError, match=r"(?s)\.so|\.dll|without CUDA|CUDA failure") as caught:
        resolve_targets(["ort:cuda"])
    assert "pip install 'mbexport[cuda]'" in str(caught.value)
    with pytest.raises(MissingDeviceError, match="fell back"):
        OrtRuntime().open(model, "cuda", SessionOptions())


def test_threads_reach_the_engine(model: Path) -> None:
    with OrtRuntime().open(model, "cpu", SessionOptions(threads=2)) as session:
        used = session._session.get_session_options()
        assert (used.intra_op_num_threads, used.inter_op_num_threads) == (2, 1)
        assert session.facts().options["intra_op_num_threads"] == "2"


def test_half_precision_in_the_graph_is_seen(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((4, 2), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    assert effective_precision(tmp_path, nodes, [weights]) == "f16"


def test_quantised_graph_is_seen(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(0, np.int8), "zero")
    weights = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["back"]),
        helper.make_node("MatMul", ["back", "w"], ["y"]),
    ]
    assert effective_precision(tmp_path, nodes, [scale, zero, weights]) == "int8"


def effective_precision(tmp_path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> str:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 4), ("y", 2))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with OrtRuntime().open(path, "cpu", SessionOptions()) as session:
        return session.facts().precision


@pytest.mark.cuda
@pytest.mark.parametrize(("mode", "precision"), [("parity", "f32"), ("production", "tf32")])
def test_cuda_pins_float32_for_parity_only(mode: Mode, precision: str, model: Path) -> None:
    if not cuda_is_here():
        pytest.skip("needs an NVIDIA GPU")
    with OrtRuntime().open(model, "cuda", SessionOptions(mode=mode)) as session:
        assert session.facts().precision == precision
        assert "cuda" in session.facts().placement
        session.bind({"input": pictures(1)})()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be confined to CPUs here")
def test_a_confined_process_is_not_given_the_machines_threads() -> None:
    ort, allowed = import_onnxruntime(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert silent_options(ort).intra_op_num_threads == 1
    finally:
        os.sched_setaffinity(0, allowed)
