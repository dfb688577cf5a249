"""What is refused of users' files, with which words: most of it before TensorFlow has read a byte."""

from __future__ import annotations

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
