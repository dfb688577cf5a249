from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mbexport.float64 import computing_in_float64

SHAPE = (64, 64, 3)


def applications() -> dict[str, Any]:
    import keras

    chosen = {"input_shape": SHAPE, "alpha": 0.5, "classes": 20, "weights": None}
    return {
        "v2": lambda: keras.applications.MobileNetV2(**chosen),
        "large": lambda: keras.applications.MobileNetV3Large(**chosen),
        "small": lambda: keras.applications.MobileNetV3Small(**chosen),
        "minimalistic": lambda: keras.applications.MobileNetV3Small(**chosen, minimalistic=True),
        "nested": lambda: keras.Sequential(
            [keras.Input(SHAPE), keras.applications.MobileNetV3Small(**chosen, include_top=False, pooling="avg")]
        ),
    }


@pytest.mark.parametrize("name", ["v2", "large", "small", "minimalistic", "nested"])
def test_as_a_network_built_in_float64(name: str) -> None:
    """Both dtypes of Keras must be set, for floatx alone leaves a policy that was already made at float32."""
    import keras

    model = applications()[name]()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        double = applications()[name]()
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    double.set_weights(model.get_weights())
    pictures = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype(np.float32)
    expected = np.asarray(double(pictures.astype(np.float64), training=False))
    with computing_in_float64(model):
        found = np.asarray(model(pictures, training=False))
    single = np.asarray(model(pictures, training=False))
    assert expected.dtype == found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert single.dtype == np.float32
    assert np.abs(single - expected).max() > 1e-10 * np.abs(expected).max()  # float32 shows at this tolerance


def test_policies_are_given_back_after_an_error() -> None:
    model = applications()["nested"]()
    with pytest.raises(KeyError), computing_in_float64(model):
        raise KeyError
    assert {layer.dtype_policy.name for layer in model.layers[-1].layers} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers[-1].layers} == {"float32"}
