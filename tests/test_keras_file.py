from __future__ import annotations

import hashlib
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from mbexport.build import build_model
from mbexport.errors import WeightsError
from mbexport.spec import ModelSpec
from mbexport.weights.keras_file import check_path

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ModelSpec(variant="small", alpha=0.35, height=32, width=32, classes=7)


def keras_model(**options: Any) -> Any:
    import keras

    chosen = {"input_shape": (32, 32, 3), "alpha": 0.35, "classes": 7, "weights": None, **options}
    return keras.applications.MobileNetV3Small(**chosen)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = keras_model()
    path = tmp_path_factory.mktemp("weights") / "v3.weights.h5"
    model.save_weights(path)
    return model, path


def test_keras_3_weights_arrive(saved: tuple[Any, Path]) -> None:
    model, path = saved
    built = build_model(SPEC, str(path))
    for mine, theirs in zip(built.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert built.origin.kind == "keras-file"
    assert built.origin.file == "v3.weights.h5"


def test_legacy_h5_weights_arrive(saved: tuple[Any, Path], tmp_path: Path) -> None:
    """The layout that Keras 2 wrote, and that Keras's own ImageNet files still have."""
    from keras.src.legacy.saving import legacy_h5_format

    model, _ = saved
    path = tmp_path / "legacy.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    for mine, theirs in zip(build_model(SPEC, str(path)).model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["whole.keras", "whole.h5"])
def test_weights_of_a_whole_model_arrive(saved: tuple[Any, Path], tmp_path: Path, name: str) -> None:
    model, _ = saved
    path = tmp_path / name
    model.save(path)
    built = build_model(SPEC, str(path))
    for mine, theirs in zip(built.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert built.origin.file == name
    assert built.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50_000])


def not_finite(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"not an HDF5 file at all" * 99), "damaged or truncated"),
        (truncated, "damaged or truncated"),
        (not_finite, "layer conv holds numbers that are not finite"),
    ],
)
def test_damaged_file(saved: tuple[Any, Path], tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "copy.weights.h5"
    shutil.copy(saved[1], path)
    damage(path)
    with pytest.raises(WeightsError, match=message):
        build_model(SPEC, str(path))


@pytest.mark.parametrize(
    ("options", "layer", "shapes", "hint"),
    [
        ({"classes": 9}, "logits", "1x1x1024x7, 7, the file's logits has 1x1x1024x9, 9", "--classes 9"),
        (
            {"alpha": 0.75},
            "expanded_conv_project",
            "1x1x16x8, the file's expanded_conv_project has 1x1x16x16",
            "--alpha",
        ),
        ({"minimalistic": True}, "expanded_conv_squeeze_excite_conv", "has", "--minimalistic"),
        ({"include_top": False}, "conv_2", "it ends before layer conv_2", "--no-include-top"),
    ],
)
def test_weights_of_another_network(
    tmp_path: Path, options: dict[str, Any], layer: str, shapes: str, hint: str
) -> None:
    path = tmp_path / "other.weights.h5"
    keras_model(**options).save_weights(path)
    with pytest.raises(WeightsError) as caught:
        build_model(SPEC, str(path))
    assert layer in str(caught.value)
    assert shapes in str(caught.value)
    assert hint in str(caught.value)


def test_file_with_more_layers(saved: tuple[Any, Path]) -> None:
    spec = ModelSpec(variant="small", alpha=0.35, height=32, width=32, include_top=False)
    with pytest.raises(WeightsError, match="holds layer conv_2, which this network does not have"):
        build_model(spec, str(saved[1]))


def test_another_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"must be a Keras \.weights\.h5, \.h5 or \.keras file"):
        build_model(SPEC, str(path))


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return path


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"readme_txt": b"hello"}, "is a zip archive without config.json"),
        ({"config_json": b"{}"}, "is a zip archive without model.weights.h5"),
        ({"config_json": b"{}", "model_weights_h5": bytes(10**7)}, "10,000,000: no weights do that"),
        ({"config_json": b"{}", "model_weights_h5": b"no HDF5"}, "damaged or truncated"),
    ],
)
def test_a_zip_that_is_no_keras_file(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    path = zipped(tmp_path / "other.keras", **members)
    with pytest.raises(WeightsError, match=message):
        build_model(SPEC, str(path))


def test_what_is_wrong_with_an_archive_is_found_before_it_is_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.keras", config_json=b"{}", model_weights_h5=bytes(10**7))
    with pytest.raises(WeightsError, match="no weights do that"):
        check_path(str(path))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    """One bit in the middle, among the numbers: only the archive's checksum can tell."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"not a zip"])
def test_damaged_archive(saved: tuple[Any, Path], tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "whole.keras"
    saved[0].save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"is not a whole \.keras archive"):
        build_model(SPEC, str(path))


@pytest.mark.parametrize("name", ["wrapped.keras", "wrapped.h5", "wrapped.weights.h5"])
def test_a_network_around_this_one(tmp_path: Path, name: str) -> None:
    import keras

    inner = keras_model(include_top=False, pooling="avg", classes=1000)
    picture = keras.Input((32, 32, 3))
    wrapped = keras.Model(picture, keras.layers.Dense(7)(inner(keras.layers.RandomFlip()(picture))))
    path = tmp_path / name
    wrapped.save_weights(path) if name.endswith(".weights.h5") else wrapped.save(path)
    with pytest.raises(WeightsError) as caught:
        build_model(SPEC, str(path))
    message = str(caught.value)
    assert "layer conv has shapes 3x3x3x16, the file's" in message
    assert f"is a whole network with {len(inner.weights)} variables inside another one" in message
    assert (f"mbexport convert {path}" in message) == (name != "wrapped.weights.h5")  # which holds no network


def test_a_file_that_claims_to_be_huge_is_not_read(saved: tuple[Any, Path], tmp_path: Path) -> None:
    path = tmp_path / "huge.weights.h5"
    shutil.copy(saved[1], path)
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars"].create_dataset("0", shape=(2**40,), dtype="float32")
    with pytest.raises(WeightsError, match=f"the file's conv has {2**40}"):
        build_model(SPEC, str(path))


def elsewhere(file: h5py.File, name: str, other: Path) -> None:
    other.write_bytes(np.zeros((3, 3, 3, 16), np.float32).tobytes())
    file.create_dataset(name, (3, 3, 3, 16), "float32", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def linked(file: h5py.File, name: str, other: Path) -> None:
    with h5py.File(other, "w") as target:
        target["kernel"] = np.zeros((3, 3, 3, 16), np.float32)
    file[name] = h5py.ExternalLink(str(other), "kernel")


@pytest.mark.parametrize("refer", [elsewhere, linked])
def test_a_file_cannot_bring_in_another_file(saved: tuple[Any, Path], tmp_path: Path, refer: Any) -> None:
    path = tmp_path / "referring.weights.h5"
    shutil.copy(saved[1], path)
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        refer(file, "layers/conv2d/vars/0", tmp_path / "secret")
    with pytest.raises(WeightsError):
        build_model(SPEC, str(path))
