from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mbexport.build import build_model, network_input
from mbexport.float64 import computing_in_float64
from mbexport.layer_calls import wrapped_calls
from mbexport.pictures import pictures
from mbexport.spec import ModelSpec
from mbexport.weights.random import round_bits

SPECS = [
    ModelSpec(variant="v2", alpha=0.35, height=64, width=64, classes=20),
    ModelSpec(variant="small", alpha=0.75, height=64, width=96, classes=20),
    ModelSpec(variant="large", alpha=0.35, height=64, width=64, classes=20),
    ModelSpec(variant="small", alpha=0.5, minimalistic=True, height=64, width=64, classes=20),
]


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.slug)
def built(request: pytest.FixtureRequest) -> tuple[ModelSpec, Any]:
    return request.param, build_model(request.param, seed=3)


def test_every_activation_sees_its_knees(built: tuple[ModelSpec, Any]) -> None:
    spec, network = built
    seen: dict[str, tuple[float, float]] = {}

    def wrap(layer: Any, call: Any) -> Any:
        def run(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if type(layer).__name__ in {"ReLU", "Activation"} and layer.name != "predictions":
                array = np.asarray(inputs)
                seen[layer.name] = (float(array.min()), float(array.max()))
            return call(inputs, *args, **kwargs)

        return run

    shown = network_input(spec, pictures(8, *spec.size, 3))
    with computing_in_float64(network.model), wrapped_calls(network.model, wrap):
        network.model(shown)
    for layer in network.model.layers:
        if layer.name in seen:
            low, high = seen[layer.name]
            is_relu6 = type(layer).__name__ == "ReLU" and layer.max_value == 6
            knees = (0.0, 6.0) if is_relu6 else (0.0, 0.0) if type(layer).__name__ == "ReLU" else (-3.0, 3.0)
            assert low < knees[0], layer.name
            assert high > knees[1], layer.name
    assert len(seen) > 10


def test_pictures_get_different_and_decided_answers(built: tuple[ModelSpec, Any]) -> None:
    spec, network = built
    probabilities = np.asarray(network.model(network_input(spec, pictures(8, *spec.size, 9))))
    assert len(set(probabilities.argmax(axis=-1))) > 2
    assert probabilities.max() > 4 / spec.classes


def test_seed_decides() -> None:
    spec = SPECS[0]
    first, again, other = (build_model(spec, seed=seed).model.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_rounding_to_significant_bits() -> None:
    values = np.array([1.0, 255.0, 256.9, 0.1, -3.14159, 0.0, 1e-30])
    rounded = round_bits(values)
    assert rounded[1] == 255.0  # 8 bits hold it
    assert rounded[2] == 256.0  # 9 bits would be needed
    assert np.all(np.abs(rounded - values) <= np.abs(values) * 2.0**-8)
    np.testing.assert_array_equal(round_bits(values * (1 + 1e-13)), rounded)
    np.testing.assert_array_equal(rounded.astype(np.float32).astype(np.float64)[:6], rounded[:6])


def test_pictures_are_bytes_that_a_seed_fixes() -> None:
    import hashlib

    shown = pictures(3, 37, 50, 5)
    assert shown.shape == (3, 37, 50, 3)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown, pictures(3, 37, 50, 5))
    assert not np.array_equal(shown, pictures(3, 37, 50, 6))
    assert len({hashlib.sha256(picture.tobytes()).hexdigest() for picture in shown}) == 3
    assert shown.min() < 40
    assert shown.max() > 215
