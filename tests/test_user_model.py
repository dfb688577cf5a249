"""Networks of users: each is saved as users do, loaded, and held against what the framework that made it answers."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from mbexport import user_model
from mbexport.compare import sqnr_db
from mbexport.errors import ConversionError, InputError
from mbexport.graph.guard import run_model
from tests import user_models as make

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from mbexport.network import Network


def check_answers(network: Network, expected: list[NDArray[Any]], least_db: float = 100.0) -> onnx.ModelProto:
    """float32, float64 and the ONNX graph all answer as the model did from which the file was made."""
    height, _, _ = network.picture_shape
    assert height is not None
    shown = make.pictures(height)
    single, double, proto = network.float32(shown), network.float64(shown), network.to_onnx(17)
    answers = run_model(ir.from_proto(proto), {"input": shown})
    assert list(answers) == network.output_names
    assert [value.name for value in proto.graph.input] == ["input"]
    for one, truth, found, wanted in zip(single, double, answers.values(), expected, strict=True):
        assert [array.dtype.name for array in (one, truth, found)] == ["float32", "float64", "float32"]
        assert sqnr_db(truth, wanted) > least_db
        assert sqnr_db(truth, one) > 100.0
        assert sqnr_db(truth, found) > 100.0
    return proto


def answers_of(model: Any, side_px: int = make.SIDE_PX) -> list[NDArray[Any]]:
    """In inference mode; a dict's in the order of its keys."""
    results = model(make.pictures(side_px), training=False)
    if isinstance(results, dict):
        results = [results[key] for key in sorted(results)]
    return [np.asarray(result) for result in (results if isinstance(results, list) else [results])]


def layer_names(proto: onnx.ModelProto) -> set[str]:
    return {node.name.rpartition("/")[0] for node in proto.graph.node}


def assert_float32_alone(proto: onnx.ModelProto) -> None:
    casts = {attribute.i for node in proto.graph.node if node.op_type == "Cast" for attribute in node.attribute}
    types = casts | {tensor.data_type for tensor in proto.graph.initializer}
    assert types <= {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32}


@pytest.mark.parametrize("name", ["flowers.keras", "flowers.h5"])
def test_transfer_learning(name: str, tmp_path: Path) -> None:
    model = make.transfer(make.keras3())
    loaded = user_model.load(make.saved(model, tmp_path / name))
    assert loaded.notes == []
    assert loaded.network.picture_shape == make.SHAPE
    assert loaded.network.output_names == ["kind"]
    proto = check_answers(loaded.network, answers_of(model))
    assert {"expanded_conv_depthwise", "kind", "global_average_pooling2d"} <= layer_names(proto)
    stored = {numpy_helper.to_array(tensor).dtype.kind for tensor in proto.graph.initializer}
    assert stored == {"f", "i"}
    assert not [tensor.name for tensor in proto.graph.initializer if "seed" in tensor.name]


def test_the_origin_is_the_file(tmp_path: Path) -> None:
    path = make.saved(make.transfer(make.keras3()), tmp_path / "flowers.keras")
    origin = user_model.load(path).origin
    assert (origin.kind, origin.file) == ("keras-model", "flowers.keras")
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("variant", ["MobileNetV2", "MobileNetV3Small"])
def test_whole_model_h5_of_keras_3(variant: str, tmp_path: Path) -> None:
    """Keras cannot load the one of V3 itself: its ``x + 3.0`` comes back as a layer that wants no numbers."""
    import keras

    network = getattr(keras.applications, variant)
    model = make.with_weights(network(input_shape=make.SHAPE, alpha=0.35, weights=None, classes=make.CLASSES))
    path = make.saved(model, tmp_path / "whole.h5")
    if variant == "MobileNetV3Small":
        with pytest.raises(ValueError, match="Only input tensors may be passed as positional arguments"):
            keras.models.load_model(path)  # when this passes, keras3._name_operations has had its day
    check_answers(user_model.load(path).network, answers_of(model))


@pytest.mark.parametrize(("as_dict", "names"), [(True, ["box", "kind"]), (False, ["kind_softmax", "multiply"])])
def test_two_outputs(as_dict: bool, names: list[str], tmp_path: Path) -> None:
    model = make.two_heads(make.keras3(), as_dict=as_dict)
    network = user_model.load(make.saved(model, tmp_path / "two.keras")).network
    assert [re.sub(r"_\d+$", "", name) for name in network.output_names] == names
    check_answers(network, answers_of(model))


def test_normalization_and_layers_of_one_name(tmp_path: Path) -> None:
    """Normalization keeps tensors that are no variables; two blocks have a layer ``conv`` each."""
    model = make.sequential(make.keras3())
    network = user_model.load(make.saved(model, tmp_path / "blocks.keras")).network
    proto = check_answers(network, answers_of(model))
    assert {"one/conv", "two/conv", "normalization", "batch_normalization_1/batchnorm"} <= layer_names(proto)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_becomes_float32(suffix: str, precision: str, tmp_path: Path) -> None:
    keras = make.keras3()
    with make.policy(keras, precision):
        path = make.saved(make.transfer(keras, head_type="float32"), tmp_path / f"mixed{suffix}")
    loaded = user_model.load(path)
    assert loaded.notes == [f"{precision}: rebuilt under float32"]
    proto = check_answers(loaded.network, answers_of(make.transfer(keras)))
    assert_float32_alone(proto)


@pytest.mark.parametrize(("precision", "least_db"), [("float16", 60.0), ("float64", 120.0)])
def test_weights_of_another_type_become_float32(precision: str, least_db: float, tmp_path: Path) -> None:
    keras = make.keras3()
    with make.policy(keras, precision):
        path = make.saved(make.transfer(keras), tmp_path / "other.keras")
    loaded = user_model.load(path)
    assert loaded.notes == [f"{precision}: rebuilt under float32"]
    check_answers(loaded.network, answers_of(make.transfer(keras)), least_db)


def test_an_open_size_is_fixed(tmp_path: Path) -> None:
    model = make.transfer(make.keras3(), (None, None, 3))
    path = make.saved(model, tmp_path / "open.keras")
    with pytest.raises(InputError, match=r"pictures of any size \(photo \(\?x\?x\?x3 float32\)\); .* --resolution"):
        user_model.load(path)
    network = user_model.load(path, size=(64, 64)).network
    assert network.picture_shape == (64, 64, 3)
    check_answers(network, answers_of(model, 64))


def test_a_fixed_size_stays(tmp_path: Path) -> None:
    path = make.saved(make.transfer(make.keras3()), tmp_path / "fixed.keras")
    with pytest.raises(InputError, match="takes pictures of 32x32, not 64x96"):
        user_model.load(path, size=(64, 96))


def test_a_layer_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    """tf2onnx knows no Erfinv; it says so in its log alone and leaves the operation in the graph."""
    import keras

    inputs = keras.Input(make.SHAPE)
    inner = keras.Input(make.SHAPE)
    strange = keras.Model(inner, keras.ops.erfinv(inner / 512), name="strange")(inputs)
    path = make.saved(keras.Model(inputs, keras.layers.Flatten()(strange)), tmp_path / "strange.keras")
    with pytest.raises(
        ConversionError, match="layer strange/erfinv: tf2onnx cannot convert its operation Erfinv; rebuild"
    ):
        user_model.load(path).network.to_onnx(17)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_by_keras_2(suffix: str, tmp_path: Path) -> None:
    model = make.transfer(make.keras2())
    loaded = user_model.load(make.saved(model, tmp_path / f"flowers{suffix}"))
    assert loaded.notes == [f"saved by Keras {make.keras2().__version__}: loaded through tf-keras"]
    assert loaded.origin.kind == "keras-model"
    assert loaded.network.output_names == ["kind"]
    assert loaded.network.picture_shape == make.SHAPE
    proto = check_answers(loaded.network, answers_of(model))
    assert "MobilenetV3small/expanded_conv/depthwise" in layer_names(proto)


def test_two_outputs_of_keras_2(tmp_path: Path) -> None:
    model = make.two_heads(make.keras2(), as_dict=True)
    network = user_model.load(make.saved(model, tmp_path / "two.h5")).network
    assert network.output_names == ["box", "kind"]
    check_answers(network, answers_of(model))


def test_mixed_precision_of_keras_2(tmp_path: Path) -> None:
    keras = make.keras2()
    with make.policy(keras, "mixed_float16"):
        path = make.saved(make.transfer(keras, head_type="float32"), tmp_path / "mixed.h5")
    loaded = user_model.load(path)
    assert loaded.notes[1:] == ["mixed_float16: rebuilt under float32"]
    check_answers(loaded.network, answers_of(make.transfer(keras)))


def test_saved_model_of_keras_3(tmp_path: Path) -> None:
    """What ``export`` writes turns pictures at random; it is to answer as the model does."""
    model = make.transfer(make.keras3())
    path = make.saved(model, tmp_path / "flowers")
    loaded = user_model.load(path)
    (note,) = loaded.notes
    assert re.fullmatch(
        r"random augmentation, .* taken out: random_flip(_\d+)*, random_rotation(_\d+)*, random_zoom(_\d+)*", note
    )
    assert (loaded.origin.kind, loaded.origin.file) == ("saved-model", "flowers")
    assert loaded.network.output_names == ["output_0"]
    check_answers(loaded.network, answers_of(model))


@pytest.mark.parametrize("way", ["save", "export"])
def test_saved_model_of_keras_2(way: str, tmp_path: Path) -> None:
    model = make.transfer(make.keras2(), (None, None, 3), whole=False)
    path = tmp_path / "flowers"
    if way == "save":
        model.save(path, save_format="tf")
    else:
        make.saved(model, path)
    with pytest.raises(InputError, match="--resolution"):
        user_model.load(path)
    loaded = user_model.load(path, size=(make.SIDE_PX, make.SIDE_PX))
    assert bool(loaded.notes) == (way == "export")
    assert loaded.network.picture_shape == make.SHAPE
    proto = check_answers(loaded.network, answers_of(model))
    assert {"backbone/stem", "backbone/stem_bn/batchnorm", "kind"} <= layer_names(proto)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}


def test_mixed_precision_of_a_saved_model(tmp_path: Path) -> None:
    """Its constants, such as the scale of 1/127.5, were rounded to float16's 11 digits when the graph was made."""
    keras = make.keras3()
    with make.policy(keras, "mixed_float16"):
        path = make.saved(make.transfer(keras, head_type="float32", whole=False), tmp_path / "mixed")
    loaded = user_model.load(path)
    assert loaded.notes[-1] == "float16: rebuilt under float32"
    proto = check_answers(loaded.network, answers_of(make.transfer(keras, whole=False)), least_db=50.0)
    assert_float32_alone(proto)


def test_a_graph_that_computes_something_else_is_no_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = user_model.load(make.saved(make.transfer(make.keras2(), whole=False), tmp_path / "net.h5")).network
    wrong = network.to_onnx(18)
    for tensor in wrong.graph.initializer:
        if list(tensor.dims) == [8, make.CLASSES]:
            tensor.CopyFrom(numpy_helper.from_array(1.001 * numpy_helper.to_array(tensor), tensor.name))
    monkeypatch.setattr(network, "to_onnx", lambda _: wrong)
    with pytest.raises(ConversionError, match=r"output kind: the graph that tf2onnx makes does not compute"):
        network.float64(make.pictures())


def test_the_truth_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = user_model.load(make.saved(make.transfer(make.keras2(), whole=False), tmp_path / "net.h5")).network
    convert = network.to_onnx
    calls: list[int] = []

    def counted(opset: int) -> onnx.ModelProto:
        calls.append(opset)
        return convert(opset)

    monkeypatch.setattr(network, "to_onnx", counted)
    first, again = network.float64(make.pictures()), network.float64(make.pictures())
    np.testing.assert_array_equal(first, again)
    assert calls == [18]


def test_the_digest_of_a_saved_model(tmp_path: Path) -> None:
    """Is one of its files' names and contents, and of nothing else."""
    first = tmp_path / "a"
    (first / "variables").mkdir(parents=True)
    (first / "saved_model.pb").write_bytes(b"graph")
    (first / "variables" / "weights").write_bytes(b"weights")
    digest = user_model.stored.sha256_of(first)
    assert user_model.stored.sha256_of(shutil.copytree(first, tmp_path / "b")) == digest
    (first / "variables" / "weights").rename(first / "variables" / "others")
    assert user_model.stored.sha256_of(first) != digest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flowers.keras", "flowers.h5", "flowers"])
def test_real_weights(name: str, real_data: Path, tmp_path: Path) -> None:
    import keras

    file = real_data / "weights" / "mobilenet_v3_small_1.0_224.weights.h5"
    whole = keras.applications.MobileNetV3Small(weights=str(file))
    inputs = keras.Input((224, 224, 3))
    base = keras.Model(whole.input, whole.get_layer("conv_2").input, name="backbone")
    features = keras.layers.Flatten()(base(keras.layers.RandomFlip()(inputs), training=False))
    model = keras.Model(inputs, keras.layers.Dense(make.CLASSES, activation="softmax")(features))
    check_answers(user_model.load(make.saved(model, tmp_path / name)).network, answers_of(model, 224))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flowers.keras", "flowers"])
def test_the_same_file_gives_the_same_bytes_in_every_process(name: str, tmp_path: Path) -> None:
    path = make.saved(make.transfer(make.keras3()), tmp_path / name)
    script = (
        "import hashlib, pathlib, sys; from mbexport import user_model; "
        "network = user_model.load(pathlib.Path(sys.argv[1])).network; "
        "print(hashlib.sha256(network.to_onnx(17).SerializeToString()).hexdigest())"
    )

    def digest(seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, path],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert digest("1") == digest("2")
