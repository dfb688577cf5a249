"""What is refused of users' files, with which words: most of it before TensorFlow has read a byte."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from mbexport import user_model
from mbexport.errors import ConversionError, InputError
from tests import user_models as make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def small(keras: Any) -> Any:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, name="conv")(inputs)))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return make.saved(small(make.keras3()), tmp_path / "good.keras")


def edited(path: Path, change: Callable[[dict[str, Any]], None], member: str = "config.json") -> Path:
    """The .keras file with another description, in its place."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents[member])
    change(config)
    contents[member] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def test_kinds(good: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    assert user_model.check(good) == "keras3"
    assert user_model.check(make.saved(small(make.keras3()), tmp_path / "whole.h5")) == "keras3"
    assert user_model.check(make.saved(small(make.keras2()), tmp_path / "old.h5")) == "keras2"
    assert user_model.check(make.saved(small(make.keras2()), tmp_path / "old.keras")) == "keras2"
    assert user_model.check(tmp_path / "saved") == "saved-model"


def test_checking_imports_no_tensorflow(good: Path) -> None:
    script = (
        "import pathlib, sys; from mbexport import user_model; user_model.check(pathlib.Path(sys.argv[1])); "
        "assert not {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, good], check=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.keras", None, "does not exist; give a .keras file"),
        ("model.onnx", b"onnx", "is none of the files that are read"),
        ("empty.keras", b"", "is empty"),
        ("text.keras", b"no zip at all", "is not a .keras file, or a truncated one"),
        ("text.h5", b"no hdf5 at all", "is not an HDF5 file, or a truncated one"),
        ("saved_model.pb", b"pb", "is part of a SavedModel; give the folder"),
    ],
)
def test_files_of_other_kinds(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        user_model.check(tmp_path / name)


def test_folders_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no SavedModel: it holds no saved_model\.pb"):
        user_model.check(tmp_path)
    for name in ("manifest.json", "model.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="is an artifact, already converted"):
        user_model.check(tmp_path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_truncated(suffix: str, tmp_path: Path) -> None:
    path = make.saved(small(make.keras3()), tmp_path / f"cut{suffix}")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        user_model.check(path)


def test_a_zip_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "pictures.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat.jpg", b"")
    with pytest.raises(InputError, match=r"a zip archive but not a Keras model: it holds no config\.json"):
        user_model.check(path)


def test_hdf5_with_the_wrong_suffix(tmp_path: Path) -> None:
    path = make.saved(small(make.keras3()), tmp_path / "whole.h5").rename(tmp_path / "whole.keras")
    with pytest.raises(InputError, match=r"its contents are HDF5: name it \.h5"):
        user_model.check(path)


@pytest.mark.parametrize("change", [lambda config: config.clear(), lambda config: config.update(config=3)])
def test_a_description_of_nothing(change: Callable[[dict[str, Any]], None], good: Path) -> None:
    edited(good, change)
    with pytest.raises(InputError, match=r"good\.keras"):
        user_model.load(good)


def test_no_version(good: Path) -> None:
    edited(good, lambda metadata: metadata.clear(), "metadata.json")
    with pytest.raises(InputError, match="is damaged: its description"):
        user_model.check(good)


def test_damaged_weights(good: Path) -> None:
    """One bit of the stored kernel: the archive's checksum tells."""
    with zipfile.ZipFile(good) as archive:
        start = archive.getinfo("model.weights.h5").header_offset
    data = bytearray(good.read_bytes())
    data[start + 3000] ^= 1
    good.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged .*CRC"):
        user_model.load(good)


@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
def test_weights_alone(keras: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "alone.weights.h5"
    small(keras()).save_weights(path)
    with pytest.raises(InputError, match="holds weights alone; use it with: mbexport build --weights"):
        user_model.check(path)


def test_hdf5_of_something_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["rows"] = np.zeros(3)
    with pytest.raises(InputError, match="holds no model"):
        user_model.check(tmp_path / "table.h5")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
def test_a_lambda_is_not_run_unless_allowed(
    keras: Callable[[], Any], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading the file takes the function from its byte code and runs it, to learn the shape that it gives."""
    monkeypatch.setenv("TRACE", str(tmp_path / "was_run"))
    layers, inputs = keras().layers, keras().Input((8, 8, 3))
    doubled = layers.Lambda(
        lambda x: (__import__("os").makedirs(__import__("os").environ["TRACE"], exist_ok=True), x * 2)[1], name="twice"
    )
    path = make.saved(keras().Model(inputs, layers.Flatten()(doubled(inputs))), tmp_path / f"code{suffix}")
    (tmp_path / "was_run").rmdir()
    with pytest.raises(InputError, match=r"holds Python code, in layer twice .* add --allow-unsafe"):
        user_model.load(path)
    assert not (tmp_path / "was_run").exists()
    loaded = user_model.load(path, allow_unsafe=True)
    assert (tmp_path / "was_run").exists()
    assert "Python code of the file was run, as it is: layer twice" in loaded.notes
    shown = make.pictures(8)
    np.testing.assert_array_equal(loaded.network.float32(shown)[0], 2 * shown.reshape(2, -1))


def test_tf_keras_imports_no_module_that_a_file_names(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1] |= {"module": "evil", "class_name": "Conv", "registered_name": None}

    path = edited(make.saved(small(make.keras2()), tmp_path / "old.keras"), change)
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(InputError, match=r"needs Python code that it does not hold: Conv \(layer conv\)"):
            user_model.load(path)
    finally:
        sys.path.remove(str(tmp_path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
def test_a_layer_of_the_users_own_is_named(keras: Callable[[], Any], suffix: str, tmp_path: Path) -> None:
    class Mine(keras().layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs * 2

    inputs = keras().Input((8, 8, 3))
    outputs = keras().layers.Flatten()(Mine(name="own")(inputs))
    path = make.saved(keras().Model(inputs, outputs), tmp_path / f"own{suffix}")
    with pytest.raises(InputError, match=r"does not hold: Mine \(layer own\); .* model\.export\(FOLDER\)"):
        user_model.load(path)


def test_a_newer_keras(good: Path) -> None:
    """What this Keras does not know is its own reason, with both versions."""
    edited(good, lambda config: config["config"]["layers"][1].update(class_name="Conv9D"))
    edited(good, lambda metadata: metadata.update(keras_version="9.1"), "metadata.json")
    with pytest.raises(InputError, match=r"saved by Keras 9\.1, cannot be loaded by Keras 3\.\d+"):
        user_model.load(good)


def network(keras: Any, *shapes: tuple[int, ...], **options: Any) -> Any:
    inputs = [keras.Input(shape, name=f"in{number}", **options) for number, shape in enumerate(shapes)]
    flat = [keras.layers.Flatten()(keras.layers.Rescaling(1.0)(one)) for one in inputs]
    joined = flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, joined)


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net"])
@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(8, 8, 3), (4,)], r"only networks that take one float32 picture"),
        ([(10,)], r"takes \w+ \(\?x10 float32\); only networks that take one float32 picture"),
        ([(3, 8, 8)], r"channels first; rebuild it with data_format='channels_last'"),
        ([(8, 8, 4)], r"a picture must have 1 or 3 channels"),
    ],
)
def test_other_inputs(
    shapes: list[tuple[int, ...]], message: str, keras: Callable[[], Any], name: str, tmp_path: Path
) -> None:
    path = make.saved(network(keras(), *shapes), tmp_path / name)
    with pytest.raises(InputError, match=message):
        user_model.load(path)


def test_integer_pictures(tmp_path: Path) -> None:
    path = make.saved(network(make.keras3(), (8, 8, 3), dtype="uint8"), tmp_path / "bytes.keras")
    with pytest.raises(InputError, match=r"takes in0 \(\?x8x8x3 uint8\); only networks that take one float32 picture"):
        user_model.load(path)


def test_integer_outputs(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.ops.argmax(keras.layers.Flatten()(inputs), axis=-1))
    with pytest.raises(InputError, match="must hold float32 numbers for each picture"):
        user_model.load(make.saved(model, tmp_path / "label.keras"))


def test_layers_with_channels_first(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_first", name="pool")(inputs)
    path = make.saved(keras.Model(inputs, pooled), tmp_path / "first.keras")
    with pytest.raises(InputError, match="layer pool expects channels first"):
        user_model.load(path)


def test_quantized_layers(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.Flatten()(inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layers that have no weights
        model.quantize("int8")
    with pytest.raises(InputError, match="layer head is quantized; convert the model from before"):
        user_model.load(make.saved(model, tmp_path / "int8.keras"))


def test_names_that_tensorflow_refuses(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    path = make.saved(keras.Model(inputs, keras.layers.Flatten(name="große Fläche")(inputs)), tmp_path / "name.keras")
    with pytest.raises(InputError, match="refuses the name of layer 'große Fläche'"):
        user_model.load(path)


def test_a_damaged_saved_model(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x0aXX")
    with pytest.raises(InputError, match="is damaged, or needs operations that are not here"):
        user_model.load(tmp_path)


def saved_function(folder: Path, function: Callable[..., Any], **signatures: tuple[int | None, ...]) -> Path:
    """A SavedModel of one TensorFlow function under each signature, a name and the picture's shape."""
    import tensorflow as tf

    module = tf.Module()
    module.run = tf.function(function)
    concrete = {
        name: module.run.get_concrete_function(tf.TensorSpec(shape, name="x")) for name, shape in signatures.items()
    }
    tf.saved_model.save(module, str(folder), signatures=concrete)
    return folder


def test_which_signature(tmp_path: Path) -> None:
    shape = (None, 8, 8, 3)
    one = saved_function(tmp_path / "one", lambda x: {"y": x + 1.0}, anything=shape)
    assert user_model.load(one).network.output_names == ["y"]
    several = saved_function(tmp_path / "two", lambda x: {"y": x + 1.0}, first=shape, second=shape)
    with pytest.raises(
        InputError, match="has these signatures: first, second; save it with one that is called serving_"
    ):
        user_model.load(several)
    none = saved_function(tmp_path / "none", lambda x: {"y": x + 1.0})
    with pytest.raises(InputError, match="has no signature"):
        user_model.load(none)


def test_random_numbers_that_are_no_augmentation(tmp_path: Path) -> None:
    import tensorflow as tf

    def noisy(x: Any) -> dict[str, Any]:
        with tf.name_scope("noise"):
            return {"y": tf.reduce_mean(x, (1, 2)) + tf.random.normal((3,))}

    path = saved_function(tmp_path / "noisy", noisy, serving_default=(None, 8, 8, 3))
    with pytest.raises(ConversionError, match=r"noise/.* draws random numbers"):
        user_model.load(path)


def test_an_operation_that_is_not_converted(tmp_path: Path) -> None:
    import tensorflow as tf

    def strange(x: Any) -> dict[str, Any]:
        with tf.name_scope("strange"):
            return {"y": tf.math.erfinv(x / 512.0)}

    path = saved_function(tmp_path / "strange", strange, serving_default=(None, 8, 8, 3))
    with pytest.raises(ConversionError, match="tf2onnx cannot convert its operation Erfinv"):
        user_model.load(path).network.to_onnx(17)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.txt"
    path.write_text("still here")
    return path


def with_description(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The .keras or .h5 file with another description."""
    if path.suffix == ".keras":
        return edited(path, change)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def calling_layer(kind: str, function: str, *arguments: object, **more: object) -> dict[str, Any]:
    config = {"name": "gad", "trainable": True, "dtype": "float32", "function": function, **more}
    inbound = [["_CONSTANT_VALUE", -1, arguments[0], {}]]
    return {"class_name": kind, "name": "gad", "config": config, "inbound_nodes": inbound}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["TFOpLambda", "SlicingOpLambda", "layers.TFOpLambda"])
@pytest.mark.parametrize("nested", [False, True])
def test_keras_2_calls_no_function_that_a_file_names(
    nested: bool, kind: str, suffix: str, victim: Path, tmp_path: Path
) -> None:
    keras = make.keras2()
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(small(keras)(inputs))) if nested else small(keras)
    evil = calling_layer(kind, "io.gfile.remove", str(victim))

    def change(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        (layers[1]["config"]["layers"] if nested else layers).append(evil)

    path = with_description(make.saved(model, tmp_path / f"evil{suffix}"), change)
    with pytest.raises(InputError, match=r"io\.gfile\.remove \(layer gad\); .* add --allow-unsafe"):
        user_model.load(path)
    assert victim.exists()


@pytest.mark.parametrize("kind", ["ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"])
def test_layers_that_call_methods(kind: str, victim: Path, tmp_path: Path) -> None:
    evil = calling_layer(kind, "remove", str(victim), cls_ref="io.gfile", method_name="remove")
    path = make.saved(small(make.keras2()), tmp_path / "evil.h5")
    with_description(path, lambda config: config["config"]["layers"].append(evil))
    with pytest.raises(InputError, match=rf"{kind} \(layer gad\); .* add --allow-unsafe"):
        user_model.load(path)
    assert victim.exists()


def test_arithmetic_of_keras_2_is_loaded(tmp_path: Path) -> None:
    """What users write between layers comes back as layers that call TensorFlow's functions."""
    import tensorflow as tf

    keras = make.keras2()
    inputs = keras.Input((8, 8, 3))
    x = tf.concat([inputs[..., :2] / 127.5 - 1.0, tf.nn.relu6(inputs[..., 2:])], -1)
    x = tf.clip_by_value(tf.maximum(x, 0.0) * 2.0 + tf.sigmoid(x), 0.0, 3.0)
    x = tf.nn.softmax(tf.reduce_mean(tf.image.resize(x, (4, 4)), (1, 2)))
    model = keras.Model(inputs, x)
    network = user_model.load(make.saved(model, tmp_path / "arithmetic.h5")).network
    shown = make.pictures(8)
    np.testing.assert_allclose(network.float32(shown)[0], model(shown).numpy(), atol=1e-6)


@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
@pytest.mark.parametrize("module", ["builtins", "keras.utils"])
def test_functions_that_are_no_activations(module: str, keras: Callable[[], Any], tmp_path: Path) -> None:
    inputs = keras().Input((8, 8, 3))
    outputs = keras().layers.Flatten()(keras().layers.Activation("relu", name="act")(inputs))
    function = {"class_name": "function", "config": "get_file", "module": module, "registered_name": "get_file"}
    path = make.saved(keras().Model(inputs, outputs), tmp_path / "function.keras")
    edited(path, lambda config: config["config"]["layers"][1]["config"].update(activation=function))
    with pytest.raises(InputError, match=r"get_file \(layer act\); .* add --allow-unsafe"):
        user_model.load(path)


@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_by_another_name(keras: Callable[[], Any], suffix: str, tmp_path: Path) -> None:
    path = make.saved(small(keras()), tmp_path / f"alias{suffix}")
    evil = {"class_name": "layers.Lambda", "module": "keras", "config": {"name": "gad"}, "inbound_nodes": []}
    with_description(path, lambda config: config["config"]["layers"].append(evil))
    with pytest.raises(InputError, match=r"holds Python code, in layer gad .* add --allow-unsafe"):
        user_model.load(path)


def initialized(folder: Path, initialize: Callable[[], Any]) -> Path:
    """A SavedModel that runs ``initialize`` when it is loaded."""
    import tensorflow as tf
    from tensorflow.python.trackable.resource import TrackableResource

    class Table(TrackableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="gad")

        def _initialize(self) -> None:
            initialize()

    module = tf.Module()
    module.table = Table()
    assert module.table.resource_handle is not None
    module.run = tf.function(lambda x: {"y": tf.reduce_mean(x, (1, 2))})
    signature = module.run.get_concrete_function(tf.TensorSpec((None, 8, 8, 3), name="x"))
    tf.saved_model.save(module, str(folder), signatures=signature)
    return folder


def test_a_saved_model_does_not_act_when_it_is_loaded(tmp_path: Path) -> None:
    import tensorflow as tf

    written = tmp_path / "written"
    path = initialized(tmp_path / "evil", lambda: tf.io.write_file(str(written), "x"))
    written.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"operations that act on the machine: WriteFile; .* add --allow-unsafe"):
        user_model.load(path)
    assert not written.exists()
    user_model.load(path, allow_unsafe=True)
    assert written.exists()


@pytest.mark.parametrize("operation", ["SaveV2", "PrintV2", "ReadFile", "EagerPyFunc"])
def test_other_operations_that_act(operation: str, tmp_path: Path) -> None:
    """SaveV2 and RestoreV2 stand in every SavedModel, but in its saver alone."""
    import tensorflow as tf

    written = tmp_path / "written"
    acts = {
        "SaveV2": lambda: tf.raw_ops.SaveV2(
            prefix=str(written), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
        ),
        "PrintV2": lambda: tf.print("x", output_stream=f"file://{written}"),
        "ReadFile": lambda: tf.io.read_file(str(written)),
        "EagerPyFunc": lambda: tf.py_function(lambda: 1.0, [], tf.float32),
    }
    written.touch()
    with pytest.raises(InputError, match=rf"act on the machine: .*{operation}.*; .* add --allow-unsafe"):
        user_model.load(initialized(tmp_path / "evil", acts[operation]))


def test_printing_is_no_harm(tmp_path: Path) -> None:
    import tensorflow as tf

    path = initialized(tmp_path / "prints", lambda: tf.print("loaded"))
    assert user_model.load(path).network.output_names == ["y"]


def rezipped(path: Path, compression: int = zipfile.ZIP_STORED, **extra: bytes) -> Path:
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()} | extra
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def test_a_damaged_deflate_stream(good: Path) -> None:
    rezipped(good, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(good) as archive:
        start = archive.getinfo("config.json").header_offset + 30 + len("config.json")
    data = bytearray(good.read_bytes())
    data[start : start + 2] = b"\xff\xff"
    good.write_bytes(data)
    with pytest.raises(InputError, match=r"good\.keras is damaged"):
        user_model.check(good)


@pytest.mark.parametrize(("local", "central", "value"), [(6, 8, 1), (8, 10, 99)])
def test_archives_that_cannot_be_unpacked(local: int, central: int, value: int, good: Path) -> None:
    """Encrypted, or packed in a way that Python does not know."""
    data = bytearray(good.read_bytes())
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] = value
            at = data.find(signature, at + 4)
    good.write_bytes(data)
    with pytest.raises(InputError, match=r"good\.keras is damaged \(.*(encrypted|compression)"):
        user_model.check(good)


def test_members_that_no_network_needs_are_not_unpacked(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rezipped(good, zipfile.ZIP_DEFLATED, **{"extra.bin": bytes(8 << 20)})
    opened: list[str] = []
    whole = zipfile.ZipFile.open

    def noted(archive: zipfile.ZipFile, name: Any, *rest: Any, **more: Any) -> Any:
        opened.append(getattr(name, "filename", name))
        return whole(archive, name, *rest, **more)

    monkeypatch.setattr(zipfile.ZipFile, "open", noted)
    user_model.load(good)
    assert "extra.bin" not in opened


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_members_that_unpack_to_something_huge(name: str, good: Path) -> None:
    rezipped(good, zipfile.ZIP_DEFLATED, **{name: b" " * (8 << 20)})
    if name == "model.weights.h5":
        assert user_model.check(good) == "keras3"
    with pytest.raises(InputError, match=rf"hold 8,388,608, in {name}: no Keras model does that"):
        user_model.load(good)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("keras", [make.keras3, make.keras2])
@pytest.mark.parametrize("way", ["link", "external", "virtual"])
def test_weights_from_another_file(way: str, keras: Callable[[], Any], suffix: str, tmp_path: Path) -> None:
    other = tmp_path / "secret"
    with h5py.File(other, "w") as file:
        file["numbers"] = np.zeros(2, np.float32)
    path = make.saved(small(keras()), tmp_path / f"reads{suffix}")

    def refer(file: h5py.File) -> None:
        if way == "link":
            file["gad"] = h5py.ExternalLink(other, "numbers")
        elif way == "external":
            file.create_dataset("gad", (2,), "f4", external=[(str(other), 0, 8)])
        else:
            layout = h5py.VirtualLayout((2,), "f4")
            layout[:] = h5py.VirtualSource(other, "numbers", (2,))
            file.create_virtual_dataset("gad", layout)

    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            refer(file)
    else:
        with zipfile.ZipFile(path) as archive:
            weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            refer(file)
        rezipped(path, zipfile.ZIP_STORED, **{"model.weights.h5": weights.getvalue()})
    with pytest.raises(InputError, match="gad refers to another file"):
        user_model.load(path)


def test_a_lambda_that_computes_in_float32_only(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    scaled = keras.layers.Lambda(lambda x: x * __import__("tensorflow").constant(2.0), name="twice")(inputs)
    path = make.saved(keras.Model(inputs, keras.layers.Flatten()(scaled)), tmp_path / "code.keras")
    network = user_model.load(path, allow_unsafe=True).network
    with pytest.raises(ConversionError, match=r"layer twice \(a Lambda\) computes in float32 only"):
        network.float64(make.pictures(8))
