"""Small networks as users have them: a MobileNet inside another model, saved in each of Keras's formats."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIDE_PX, CLASSES = 32, 5
SHAPE = (SIDE_PX, SIDE_PX, 3)


def pictures(side_px: int = SIDE_PX, count: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0, 255, (count, side_px, side_px, 3)).astype(np.float32)


def keras3() -> Any:
    import keras

    return keras


def keras2() -> Any:
    return pytest.importorskip("tf_keras", reason="tf-keras is not installed")


def with_weights(model: Any) -> Any:
    """``model`` with seeded weights that keep activations moderate; an adapted Normalization keeps its own."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        name = getattr(variable, "path", variable.name)
        drawn = rng.normal(size=tuple(variable.shape))
        if re.search(r"(^|/)normalization(_\d+)?/", name):
            continue
        if "variance" in name:
            variable.assign(np.abs(drawn) + 0.5)
        elif "gamma" in name:
            variable.assign(1 + 0.1 * drawn)
        elif "kernel" in name:
            variable.assign(drawn * np.sqrt(2 / np.prod(variable.shape[:-1])))
        else:
            variable.assign(0.1 * drawn)
    return model


def backbone(keras: Any, shape: tuple[int | None, ...] = SHAPE, **options: Any) -> Any:
    return keras.applications.MobileNetV3Small(
        input_shape=shape, alpha=0.35, weights=None, include_top=False, **options
    )


def few_layers(keras: Any, shape: tuple[int | None, ...] = SHAPE) -> Any:
    """A backbone of each kind of layer once, for what takes long with a whole one."""
    layers = keras.layers
    inputs = keras.Input(shape)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(layers.Rescaling(1 / 127.5, -1)(inputs))
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    return keras.Model(inputs, layers.BatchNormalization(name="depthwise_bn")(x) + 0.5, name="backbone")


def transfer(
    keras: Any, shape: tuple[int | None, ...] = SHAPE, head_type: str | None = None, whole: bool = True
) -> Any:
    """Augmentation, a frozen backbone as one layer, pooling, dropout, softmax."""
    layers = keras.layers
    inputs = keras.Input(shape, name="photo")
    augmented = layers.RandomZoom(0.1)(layers.RandomRotation(0.1)(layers.RandomFlip()(inputs)))
    base = backbone(keras, shape) if whole else few_layers(keras, shape)
    base.trainable = False
    features = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(base(augmented, training=False)))
    head = layers.Dense(CLASSES, activation="softmax", dtype=head_type, name="kind")
    return with_weights(keras.Model(inputs, head(features)))


def two_heads(keras: Any, *, as_dict: bool) -> Any:
    """Probabilities, and a doubled matrix product, which comes from no layer."""
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    features = layers.GlobalAveragePooling2D()(backbone(keras)(inputs))
    kind = layers.Dense(CLASSES, activation="softmax", name="kind_softmax")(features)
    place = layers.Dense(4, name="place_matrix")(features)
    return with_weights(keras.Model(inputs, {"kind": kind, "box": place} if as_dict else [kind, place * 2.0]))


def sequential(keras: Any) -> Any:
    """Normalization from data, and two blocks whose layers have the same names."""
    layers = keras.layers
    normalization = layers.Normalization()
    normalization.adapt(pictures(count=4))

    def block(name: str) -> Any:
        return keras.Sequential(
            [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(), layers.ReLU()], name=name
        )

    head = [layers.Flatten(), layers.Dense(CLASSES)]
    return with_weights(
        keras.Sequential([keras.Input(SHAPE), layers.RandomFlip(), normalization, block("one"), block("two"), *head])
    )


@contextmanager
def policy(keras: Any, name: str) -> Iterator[None]:
    """Keras's own precision for a while."""
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy("float32")


def saved(model: Any, path: Path) -> Path:
    """``path``, the model written there: a SavedModel where it has no suffix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on HDF5, which users go on saving
        if path.suffix:
            model.save(path)
        else:
            model.export(path, **({"verbose": False} if model.__module__.startswith("keras.") else {}))
    return path
