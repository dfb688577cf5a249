"""The trained fixture is what its README says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.fixtures import digits


@pytest.fixture(scope="module")
def probabilities() -> Any:
    keras = pytest.importorskip("keras")
    model = keras.applications.MobileNetV3Small(
        input_shape=(digits.SPEC.height, digits.SPEC.width, 3),
        alpha=digits.SPEC.alpha,
        weights=None,
        classes=digits.SPEC.classes,
    )
    model.load_weights(digits.WEIGHTS)
    return np.asarray(model(digits.load_pictures()[0], training=False))


def test_accuracy_is_the_one_named(probabilities: Any) -> None:
    _, labels = digits.load_pictures()
    assert (probabilities.argmax(-1) == labels).mean() >= digits.ACCURACY - 0.01
    right, of = re.findall(r"(\d+) of (\d+) held-out", (digits.FOLDER / "README.md").read_text())[0]
    assert int(right) / int(of) == digits.ACCURACY
    assert int(of) == len(labels)


def test_pictures_are_as_the_network_takes_them() -> None:
    pictures, labels = digits.load_pictures()
    assert pictures.shape == (len(labels), digits.SPEC.height, digits.SPEC.width, 3)
    assert pictures.dtype == np.float32
    assert pictures.min() == 0
    assert pictures.max() == 255
    assert np.bincount(labels, minlength=10).min() >= 30


def test_pictures_are_unaltered_ones_of_the_data_set() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    known = {
        (picture.astype(np.uint8).tobytes(), int(label))
        for picture, label in zip(*datasets.load_digits(return_X_y=True), strict=True)
    }
    with np.load(digits.HELD_OUT, allow_pickle=False) as arrays:
        held_out = {
            (picture.tobytes(), int(label)) for picture, label in zip(arrays["pictures"], arrays["labels"], strict=True)
        }
    assert held_out <= known


def test_fixture_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in digits.FOLDER.iterdir()) < 3_000_000
