"""Graphs of strangers: nothing outside of the file, and no more memory than a network needs."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mbexport.artifact import Artifact
from mbexport.bundle.graphs import refuse_unsafe
from mbexport.bundle.make import bundle
from mbexport.bundle.wire import refuse_crowded
from mbexport.errors import BundleError
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

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
    refuse_unsafe(tiny_artifact(folder, model=model.SerializeToString()))


def node(kind: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    """The last name is its result, and its own."""
    return helper.make_node(kind, names[:-1], names[-1:], name=names[-1], **attributes)


def subgraph(name: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(f"{name}_value", TensorProto.FLOAT, [HUGE])
    filled = node("ConstantOfShape", "length", f"{name}_value")
    return helper.make_graph([filled], name, [], [value])


def test_a_shape_that_is_computed_from_the_input(tmp_path: Path) -> None:
    """As exporters write it for UpSampling2D."""
    opened(
        tmp_path,
        model_with(
            node("Shape", "input", "shape"),
            node("Cast", "shape", "exact", to=TensorProto.FLOAT),
            node("Slice", "exact", "second", "third", "side"),
            node("Cast", "side", "whole", to=TensorProto.INT64),
            node("Mul", "whole", "two", "twice"),
            node("Concat", "two", "twice", "all", axis=0),
            node("ConstantOfShape", "all", "filled"),
            second=[1],
            third=[2],
            two=[2],
        ),
    )


def test_networks_pass(small_artifact: Artifact, tmp_path: Path) -> None:
    refuse_unsafe(small_artifact)
    opened(tmp_path, model_with())


LARGE = {
    "a constant": (node("ConstantOfShape", "length", "large"),),
    "a constant of many sides": (node("Expand", "bias", "sides", "large"),),
    "copies": (node("Tile", "matrix", "repeats", "large"),),
    "chance": (node("RandomNormal", "large", shape=[HUGE]),),
    "a margin": (node("Pad", "bias", "margin", "large"),),
    "a bigger picture": (node("Resize", "input", "", "scales", "large"),),
    "classes": (node("OneHot", "few", "depth", "ends", "large"),),
    "a computed shape": (
        node("Shape", "input", "own"),
        node("Mul", "own", "thousand", "larger"),
        node("ConstantOfShape", "larger", "large"),
    ),
    "numbers that are widened": (
        node("Cast", "row", "narrow", to=TensorProto.FLOAT16),
        node("Tile", "narrow", "copies", "large"),
    ),
    "a wide kernel": (node("ConvTranspose", "image", "wide", "large"),),
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
        thousand=[1000],
        copies=[1, 500],
        image=np.zeros((1, 1, 64, 64), np.float32),
        wide=np.zeros((1, 1, 256, 256), np.float32),
    )
    with pytest.raises(BundleError, match=r"/tiny/model\.onnx takes more than the \d+ bytes .* node large"):
        opened(tmp_path, model)


def test_many_tensors_that_are_not_large_each(tmp_path: Path) -> None:
    model = model_with(
        *(node("ConstantOfShape", "length", f"part{number}") for number in range(8)), length=[10_000_000]
    )
    with pytest.raises(BundleError, match="node part6 "):
        opened(tmp_path, model)


UNKNOWN = {
    "found by running": (node("NonZero", "input", "places"),),
    "computed from pixels": (
        node("ReduceMax", "input", "brightest", keepdims=0),
        node("Cast", "brightest", "count", to=TensorProto.INT64),
        node("Unsqueeze", "count", "axis", "shape"),
        node("ConstantOfShape", "shape", "filled"),
    ),
    "beyond the end": (node("Shape", "input", "shape"), node("Gather", "shape", "far", "filled")),
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
    model = model_with(*nodes, yes=np.array(True), length=[HUGE], axis=[0], far=[9])
    model.opset_import.append(helper.make_opsetid("com.stranger", 1))
    with pytest.raises(
        BundleError, match=r"/tiny/model\.onnx has a node .*\((NonZero|C.*|S.*|If|I.*|Relu|MatMul|Gather)\)"
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
    with pytest.raises(BundleError, match="takes more than"):
        opened(tmp_path, model)


HUNGRY = (
    node("Einsum", "input", "input", "input", "scores", equation="abcd,efgh,ijkl->a"),
    node("DFT", "input", "scores"),
)


@pytest.mark.parametrize("hungry", HUNGRY, ids=lambda hungry: hungry.op_type)
def test_operators_whose_working_memory_is_not_known(hungry: onnx.NodeProto, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="may take any memory to compute"):
        opened(tmp_path, model_with(hungry))


def test_tensors_of_many_sides(tmp_path: Path) -> None:
    """Each of 65000 nodes could keep as many numbers for its shape."""
    model = model_with(node("Reshape", "one", "shape", "long"), one=np.ones(1, np.float32), shape=[1] * 60)
    with pytest.raises(BundleError, match="a tensor of 60 sides"):
        opened(tmp_path, model)


def test_a_file_that_is_crowded(tmp_path: Path) -> None:
    """Parsing takes 80 bytes for each of these two."""
    crowd = b"\x0a\x00" * 5_000_000
    graph = b"\x3a" + varint(len(crowd)) + crowd
    artifact = tiny_artifact(tmp_path, model=model_with().SerializeToString() + graph)
    with pytest.raises(BundleError, match="more than 8388608 bytes beside its weights"):
        refuse_unsafe(artifact)


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        refuse_crowded(data)


def test_models_that_an_engine_would_take_for_something_else(tmp_path: Path) -> None:
    """ONNX Runtime reads its own format where a file is called .ort, whatever else can be read from it."""
    artifact = tiny_artifact(tmp_path)
    manifest = msgspec.structs.replace(artifact.manifest, models={"ort": "model.ort"})
    with pytest.raises(BundleError, match=r"model\.ort is not called \.onnx"):
        refuse_unsafe(Artifact(artifact.path, manifest))


def of_shape(artifact: Artifact, shape: list[int | None]) -> Artifact:
    contract = msgspec.structs.replace(artifact.manifest.input, shape=shape)
    return Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, input=contract))


def test_a_graph_is_measured_in_the_batch_that_it_is_run_in(tmp_path: Path) -> None:
    model = TinyNetwork().onnx_model(batch=3_000_000).SerializeToString()
    artifact = of_shape(tiny_artifact(tmp_path, model=model), [3_000_000, 8, 8, 3])
    with pytest.raises(BundleError, match="takes more than the 8589934592 bytes"):
        refuse_unsafe(artifact)


def test_a_graph_of_another_shape_than_its_contract(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"takes \[\[None, 8, 8, 3\]\], and its contract says \[4, 8, 8, 3\]"):
        refuse_unsafe(of_shape(tiny_artifact(tmp_path), [4, 8, 8, 3]))
    with pytest.raises(BundleError, match="its pictures are not as large"):
        refuse_unsafe(of_shape(tiny_artifact(tmp_path / "other"), [None, 9, 9, 3]))


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
        refuse_unsafe(artifact)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 10_000_000


def test_weights_that_are_not_all_there(tmp_path: Path) -> None:
    model = model_with()
    model.graph.initializer.add(name="hollow", data_type=TensorProto.FLOAT, dims=[HUGE])
    with pytest.raises(BundleError, match=r"holds a tensor hollow of \[5000000000\] and not all of its numbers"):
        opened(tmp_path, model)


def test_a_name_for_two_tensors(tmp_path: Path) -> None:
    """A shape that is a constant to who reads the file, and computed to who runs it."""
    model = model_with(node("Identity", "length", "sides"), sides=[1], length=[HUGE])
    with pytest.raises(BundleError, match="writes sides, which is there already"):
        opened(tmp_path, model)


def test_weights_of_less_than_nothing(tmp_path: Path) -> None:
    model = model_with()
    model.graph.initializer.add(name="negative", data_type=TensorProto.FLOAT, dims=[-1], raw_data=bytes(8))
    with pytest.raises(BundleError, match=r"negative of \[-1\]"):
        opened(tmp_path, model)


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    model = model_with()
    model.graph.initializer.add(name="torn", data_type=TensorProto.FLOAT, dims=[2], raw_data=b"12345")
    with pytest.raises(BundleError, match="torn that cannot be read"):
        opened(tmp_path, model)


def test_weights_of_an_unknown_type(tmp_path: Path) -> None:
    model = model_with()
    model.graph.initializer.add(name="odd", data_type=999, dims=[1])
    with pytest.raises(BundleError, match="unknown type, 999"):
        opened(tmp_path, model)


def test_text(tmp_path: Path) -> None:
    """Each concatenation could double it."""
    model = model_with(node("StringConcat", "text", "text", "longer"))
    model.opset_import[0].version = 20
    model.graph.initializer.add(name="text", data_type=TensorProto.STRING, string_data=[b"x"])
    with pytest.raises(BundleError, match="holds text"):
        opened(tmp_path, model)
    cast = model_with(node("Cast", "bias", "text", to=TensorProto.STRING))
    with pytest.raises(BundleError, match="holds text"):
        opened(tmp_path / "cast", cast)


def test_sparse_weights_and_functions(tmp_path: Path) -> None:
    sparse = model_with()
    values = numpy_helper.from_array(np.ones(1, np.float32), "thin")
    sparse.graph.sparse_initializer.add(values=values, dims=[HUGE])
    hidden = model_with()
    hidden.functions.add(name="Hidden", domain="com.stranger")
    for number, model in enumerate((sparse, hidden)):
        with pytest.raises(BundleError, match="holds functions or sparse weights"):
            opened(tmp_path / str(number), model)
