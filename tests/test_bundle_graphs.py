"""Graphs of strangers: nothing outside of the file, and no more memory than a network needs."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.bundle.graphs import refuse_unsafe
from mbexport.bundle.make import bundle
from mbexport.errors import BundleError
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact

HUGE = 5_000_000_000


def model_with(*nodes: onnx.NodeProto, **constants: list[int] | np.ndarray) -> onnx.ModelProto:
    """The tiny network, and nodes whose results nothing uses."""
    model = TinyNetwork().onnx_model()
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()
    )
    return model


def opened(folder: Path, model: onnx.ModelProto) -> None:
    refuse_unsafe("b.zip", tiny_artifact(folder, model=model.SerializeToString()))


def node(kind: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    """The last name is its result, and its own."""
    return helper.make_node(kind, names[:-1], names[-1:], name=names[-1], **attributes)


def subgraph(name: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(f"{name}_value", TensorProto.FLOAT, [HUGE])
    filled = node("ConstantOfShape", "length", f"{name}_value")
    return helper.make_graph([filled], name, [], [value])


def test_networks_pass(small_artifact: Artifact, tmp_path: Path) -> None:
    refuse_unsafe("b.zip", small_artifact)
    opened(tmp_path, model_with())


LARGE = {
    "a constant": (node("ConstantOfShape", "length", "large"),),
    "a constant of many sides": (node("Expand", "bias", "sides", "large"),),
    "copies": (node("Tile", "matrix", "repeats", "large"),),
    "chance": (node("RandomNormal", "large", shape=[HUGE]),),
    "a margin": (node("Pad", "bias", "margin", "large"),),
    "a bigger picture": (node("Resize", "input", "", "scales", "large"),),
    "classes": (node("OneHot", "few", "depth", "ends", "large"),),
    "an outer product": (
        node("ConstantOfShape", "few", "column"),
        node("Unsqueeze", "column", "axis", "standing"),
        node("MatMul", "standing", "row", "large"),
    ),
}


@pytest.mark.parametrize("nodes", LARGE.values(), ids=LARGE)
def test_tensors_that_are_too_large(nodes: tuple[onnx.NodeProto, ...], tmp_path: Path) -> None:
    model = model_with(
        *nodes,
        length=[HUGE],
        sides=[70_000, 70_000, 5],
        repeats=[30_000, 30_000],
        margin=[0, HUGE],
        scales=np.array([1, 10_000, 1000, 1], np.float32),
        few=[100_000],
        depth=[HUGE],
        ends=np.array([0, 1], np.float32),
        axis=[1],
        row=np.zeros((1, 100_000), np.float32),
    )
    with pytest.raises(BundleError, match=r"^b\.zip: tiny/model\.onnx writes more than the \d+ bytes .* node large"):
        opened(tmp_path, model)


def test_many_tensors_that_are_not_large_each(tmp_path: Path) -> None:
    model = model_with(
        *(node("ConstantOfShape", "length", f"part{number}") for number in range(8)), length=[10_000_000]
    )
    with pytest.raises(BundleError, match="node part6 "):
        opened(tmp_path, model)


UNKNOWN = {
    "found by running": (node("NonZero", "input", "places"),),
    "computed": (node("Shape", "input", "shape"), node("ConstantOfShape", "shape", "filled")),
    "a sequence": (node("SplitToSequence", "input", "parts"),),
    "a branch": (node("If", "yes", "chosen", then_branch=subgraph("one"), else_branch=subgraph("other")),),
    "an operator of somebody's own": (helper.make_node("Inflate", ["input"], ["filled"], domain="com.stranger"),),
    "an operator of no version": (node("Inflate", "input", "filled"),),
    "a tensor of nowhere": (node("Relu", "nowhere", "filled"),),
    "two inputs of one": (node("Relu", "input", "input", "filled"),),
    "kernels that do not fit": (node("MatMul", "kernel", "matrix", "filled"),),
}


@pytest.mark.parametrize("nodes", UNKNOWN.values(), ids=UNKNOWN)
def test_tensors_of_unknown_size(nodes: tuple[onnx.NodeProto, ...], tmp_path: Path) -> None:
    model = model_with(*nodes, yes=np.array(True), length=[HUGE])
    model.opset_import.append(helper.make_opsetid("com.stranger", 1))
    with pytest.raises(
        BundleError, match=r"^b\.zip: tiny/model\.onnx has a node .*\((NonZero|C.*|S.*|If|I.*|Relu|MatMul)\)"
    ):
        opened(tmp_path, model)


def test_what_could_not_be_opened_is_not_written(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, model=model_with(node("NonZero", "input", "places")).SerializeToString())
    with pytest.raises(BundleError, match="no size that is known before it runs"):
        bundle([artifact], tmp_path / "b.zip", ["ort:cpu"])
    assert not (tmp_path / "b.zip").exists()


def test_what_the_file_says_of_its_tensors_is_not_believed(tmp_path: Path) -> None:
    model = model_with(node("ConstantOfShape", "length", "large"), length=[HUGE])
    model.graph.value_info.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, [1]))
    model.graph.output.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, [1]))
    with pytest.raises(BundleError, match="writes more than"):
        opened(tmp_path, model)


def test_asking_costs_little(tmp_path: Path) -> None:
    """A shape of 5e9 sides would take ONNX's inference tens of gigabytes."""
    model = model_with(
        node("ConstantOfShape", "length", "shape", value=helper.make_tensor("one", TensorProto.INT64, [1], [1])),
        node("ConstantOfShape", "shape", "large"),
        length=[2_000_000],
    )
    artifact = tiny_artifact(tmp_path, model=model.SerializeToString())
    tracemalloc.start()
    with pytest.raises(BundleError, match="writes 2000000 integers"):
        refuse_unsafe("b.zip", artifact)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 10_000_000


def test_weights_that_are_not_all_there(tmp_path: Path) -> None:
    model = model_with()
    model.graph.initializer.add(name="hollow", data_type=TensorProto.FLOAT, dims=[HUGE])
    with pytest.raises(BundleError, match=r"holds a tensor hollow of \[5000000000\] and not all of its numbers"):
        opened(tmp_path, model)


def test_weights_of_an_unknown_type(tmp_path: Path) -> None:
    model = model_with()
    model.graph.initializer.add(name="odd", data_type=999, dims=[1])
    with pytest.raises(BundleError, match="unknown type, 999"):
        opened(tmp_path, model)


def test_sparse_weights_and_functions(tmp_path: Path) -> None:
    sparse = model_with()
    values = numpy_helper.from_array(np.ones(1, np.float32), "thin")
    sparse.graph.sparse_initializer.add(values=values, dims=[HUGE])
    hidden = model_with()
    hidden.functions.add(name="Hidden", domain="com.stranger")
    for number, model in enumerate((sparse, hidden)):
        with pytest.raises(BundleError, match="holds functions or sparse weights"):
            opened(tmp_path / str(number), model)
