"""Weights for rounded inputs, held against every other choice where the sizes are tiny."""

from __future__ import annotations

from itertools import product as every
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mbexport.quantize.fitting import MAX_BIAS, Weights, refitted, rounded
from mbexport.quantize.network import Product
from mbexport.quantize.samples import Samples, take
from mbexport.runtimes.ort_calls import run_unoptimized

if TYPE_CHECKING:
    from numpy.typing import NDArray


def correlated(inputs: int, seed: int, places: int = 4000) -> NDArray[np.float64]:
    """Numbers that share most of what they say, as neighbouring channels do, (places, inputs)."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(2, inputs))
    return rng.normal(size=(places, 2)) @ shared + 0.1 * rng.normal(size=(places, inputs))


def moments(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x.T @ x / len(x))[None]


def lost(kernel: NDArray[np.float64], steps: NDArray[Any], scale: NDArray[Any], covariance: NDArray[np.float64]) -> Any:
    """E|(W - Wq) x|^2 of each output, from its definition, (groups, outputs)."""
    off = kernel - steps * scale[..., None].astype(np.float64)
    return np.einsum("goi,gij,goj->go", off, covariance, off)


@pytest.mark.parametrize("inputs", [3, 16, 100])
@pytest.mark.parametrize("levels", [63, 127])
def test_making_up_is_better_than_the_nearest(inputs: int, levels: int) -> None:
    kernel = np.random.default_rng(3).normal(size=(1, 24, inputs))
    covariance = moments(correlated(inputs, seed=inputs))
    steps, scale = rounded(kernel, covariance, levels, np.zeros((1, 24)))
    assert [array.dtype.name for array in (steps, scale)] == ["int8", "float32"]
    assert np.abs(steps.astype(int)).max() <= levels
    nearest = np.clip(np.rint(kernel / scale[..., None]), -levels, levels)
    found, plain = (lost(kernel, each, scale, covariance).sum() for each in (steps, nearest))
    assert found < (0.7 if inputs > 3 else 1.0) * plain
    widest = np.abs(kernel).max(axis=2) / levels
    unclipped = lost(kernel, np.rint(kernel / widest[..., None]), widest, covariance).sum()
    assert found < unclipped


def test_no_other_steps_are_much_better() -> None:
    """Two levels either way: with 5^3 choices an output all of them can be tried."""
    kernel = np.random.default_rng(0).normal(size=(1, 200, 3))
    covariance = moments(correlated(3, seed=1))
    steps, scale = rounded(kernel, covariance, 2, np.zeros((1, 200)))
    choices = np.array(list(every(range(-2, 3), repeat=3)))[:, None, None, :]
    best = np.min([lost(kernel, choice, scale, covariance) for choice in choices], axis=0)
    nearest = lost(kernel, np.clip(np.rint(kernel / scale[..., None]), -2, 2), scale, covariance)
    found = lost(kernel, steps, scale, covariance)
    assert (found >= best * (1 - 1e-9)).all()
    assert found.sum() - best.sum() < 0.7 * (nearest.sum() - best.sum())


def test_inputs_that_know_nothing_of_each_other_leave_the_nearest() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 8, 20))
    covariance = np.broadcast_to(np.eye(20), (3, 20, 20))
    steps, scale = rounded(kernel, covariance, 127, np.zeros((3, 8)))
    assert np.array_equal(steps, np.clip(np.rint(kernel / scale[..., None]), -127, 127))


def test_groups_are_rounded_each_by_its_own_inputs() -> None:
    kernel = np.random.default_rng(0).normal(size=(2, 4, 12))
    covariance = np.concatenate([moments(correlated(12, seed=1)), moments(correlated(12, seed=2))])
    steps, scale = rounded(kernel, covariance, 127, np.zeros((2, 4)))
    for group in range(2):
        part = slice(group, group + 1)
        alone = rounded(kernel[part], covariance[part], 127, np.zeros((1, 4)))
        assert np.array_equal(steps[part], alone[0])
        assert np.array_equal(scale[part], alone[1])


@pytest.mark.parametrize("dead", ["weights", "inputs", "both"])
def test_what_is_dead_is_rounded_too(dead: str) -> None:
    kernel = np.zeros((1, 3, 5)) if dead != "inputs" else np.random.default_rng(0).normal(size=(1, 3, 5))
    covariance = np.zeros((1, 5, 5)) if dead != "weights" else moments(correlated(5, seed=0))
    steps, scale = rounded(kernel, covariance, 127, np.zeros((1, 3)))
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    assert np.abs(steps * scale[..., None] - kernel).max() <= np.abs(kernel).max() / 127


def test_one_large_weight_is_clipped_where_its_input_is_silent() -> None:
    kernel = np.full((1, 1, 50), 0.3)
    kernel[0, 0, 7] = 1.0
    kernel += np.random.default_rng(0).normal(0, 0.01, kernel.shape)
    covariance = np.eye(50)[None].copy()
    covariance[0, 7, 7] = 1e-6
    _, scale = rounded(kernel, covariance, 127, np.zeros((1, 1)))
    assert scale[0, 0] < 0.8 * np.abs(kernel).max() / 127


@pytest.mark.parametrize("bias", [3.0, -1e4, 1e7])
def test_a_bias_in_units_of_both_scales_fits_into_32_bits(bias: float) -> None:
    kernel = np.random.default_rng(0).normal(size=(1, 2, 4)) * 1e-3
    input_scale = 1e-4
    least = np.full((1, 2), abs(bias) / input_scale / MAX_BIAS)
    steps, scale = rounded(kernel, np.eye(4)[None], 127, least)
    assert abs(bias) / (input_scale * scale.min()) < 2**31
    assert (scale >= least * (1 - 1e-6)).all()
    off = np.abs(steps * scale[..., None] - kernel)
    assert (off <= scale[..., None] * 0.51 + 1e-12).all()


def samples(x: NDArray[np.float64], y: NDArray[np.float64]) -> Samples:
    """Of one group, without means."""
    parts = (part - part.mean(axis=0) for part in (x, y))
    one, other = (part.astype(np.float32)[:, None, :] for part in parts)
    return Samples(one, other)


def test_weights_are_recovered_from_noisy_inputs() -> None:
    """The graph's kernel is wrong, the answers are those of another: with enough pictures that one is found."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(1, 6, 8))
    x = rng.normal(size=(20_000, 8))
    y = x @ truth[0].T + 0.01 * rng.normal(size=(20_000, 6))
    found = refitted(truth + 0.1 * rng.normal(size=truth.shape), samples(x, y))
    assert np.abs(found - truth).max() < 0.003  # the smallest ridge leaves 0.3% of the difference


def test_noise_in_an_input_takes_weight_from_it() -> None:
    """Wiener's filter: signal power over signal and noise power."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(40_000, 3))
    noise_std = np.array([0.0, 1.0, 2.0])
    kernel = np.ones((1, 1, 3))
    found = refitted(kernel, samples(clean + noise_std * rng.normal(size=clean.shape), clean @ kernel[0].T))
    assert found[0, 0] == pytest.approx(1 / (1 + noise_std**2), abs=0.03)


@pytest.mark.parametrize("places", [40, 400, 4000])
@pytest.mark.parametrize("noise_std", [0.0, 0.05, 0.5])
def test_refitting_is_never_worse_on_other_pictures(places: int, noise_std: float) -> None:
    inputs, outputs = 16, 4
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kernel = rng.normal(size=(1, outputs, inputs))

        def seen(count: int, rng: Any = rng, kernel: Any = kernel, seed: int = seed) -> Samples:
            clean = correlated(inputs, seed=seed, places=count)[rng.permutation(count)]
            return samples(clean + noise_std * rng.normal(size=clean.shape), clean @ kernel[0].T)

        found, others = refitted(kernel, seen(places)), seen(20_000)
        power = float(np.square(others.outputs).mean()) * outputs
        assert others.error(found) <= others.error(kernel) + 0.01 * power
        if places == 4000 and noise_std == 0.5:
            assert others.error(found) < others.error(kernel)


def test_the_right_kernel_stays() -> None:
    kernel = np.random.default_rng(0).normal(size=(1, 4, 6))
    x = correlated(6, seed=0)
    found = refitted(kernel, samples(x, x @ kernel[0].T))
    assert np.abs((found - kernel) @ (x - x.mean(axis=0)).T).max() < 1e-3


def test_error_is_the_mean_square_but_for_what_no_kernel_changes() -> None:
    rng = np.random.default_rng(0)
    seen = Samples(rng.normal(size=(300, 2, 5)).astype(np.float32), rng.normal(size=(300, 2, 3)).astype(np.float32))
    kernel = rng.normal(size=(2, 3, 5))
    answers = np.einsum("goi,pgi->pgo", kernel, seen.inputs)
    expected = np.square(answers - seen.outputs).sum() / 300 - np.square(seen.outputs).sum() / 300
    assert seen.error(kernel) == pytest.approx(expected, rel=1e-4)
    one, other = seen.halves()
    assert len(one.inputs) + len(other.inputs) == 300
    assert one.error(kernel) + other.error(kernel) == pytest.approx(2 * expected, rel=1e-4)


FORMS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 2], "pads": [0, 0, 1, 1]},
    {"group": 6, "pads": [1, 2, 0, 1]},
    {"group": 2, "dilations": [2, 1], "strides": [1, 2]},
]


@pytest.mark.parametrize("form", FORMS, ids=["plain", "strided", "depthwise", "dilated"])
def test_samples_are_what_the_kernel_covers(form: dict[str, Any]) -> None:
    """The kernel times the inputs at a place is the answer there, but for the means."""
    rng = np.random.default_rng(0)
    groups = form.get("group", 1)
    kernel = rng.normal(size=(6, 6 // groups, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "kernel"], ["y"], name="conv", **form)
    product = Product(node, kernel, np.zeros(6, np.float32), groups)
    x = rng.normal(size=(5, 6, 9, 11)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one",
        [value("x", onnx.TensorProto.FLOAT, x.shape)],
        [value("y", onnx.TensorProto.FLOAT, [None] * 4)],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    y = run_unoptimized(model, {"x": x})["y"]
    seen = take(product, [x[:2], x[2:]], [y[:2], y[2:]])
    found = np.einsum("goi,pgi->pgo", kernel.reshape(groups, 6 // groups, -1), seen.inputs)
    assert found == pytest.approx(seen.outputs, abs=1e-4)
    assert np.abs(seen.inputs.mean(axis=0)).max() < 1e-5
    assert np.abs(seen.outputs).max() > 1


def test_what_weights_stand_for() -> None:
    weights = Weights(np.array([[[[2]]], [[[-3]]]], np.int8), np.array([0.5, 4], np.float32), np.zeros(2, np.float32))
    assert weights.as_float.tolist() == [[[[1.0]]], [[[-12.0]]]]
