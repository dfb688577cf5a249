from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from mbexport.build import build_model
from mbexport.errors import WeightsError
from mbexport.spec import ModelSpec

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
    with pytest.raises(WeightsError, match=r"must be a Keras \.weights\.h5 or \.h5 file"):
        build_model(SPEC, str(path))
