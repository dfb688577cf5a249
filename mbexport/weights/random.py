"""Seeded random weights, calibrated so that activations are realistic.

Freshly initialised networks give near-uniform probabilities and activations that stay on one side of every knee; there
a wrong graph looks right. So one walk through the network in float64 sets, layer by layer, batch-norm statistics from
what really arrives, and scales the layers that have no batch norm behind them. Every statistic is rounded to 8
significant bits before it is used: kernels and thread counts move a float64 statistic by 1e-13, which such a rounding
does not see, so the weights, and with them ``model.onnx``, are the same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.float64 import computing_in_float64
from mbexport.layer_calls import called_on, wrapped_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

GAMMA = (1.2, 2.2)
BETA = (-0.5, 1.5)
"""Batch norm's output then has a standard deviation near 1.7 round 0.5: it crosses -3, 0, 3 and 6."""
GATE_STD = 1.0
GATE_BIAS = 4.2
"""Squeeze-excite's gates: their biases reach past both knees of the hard sigmoid, while a larger deviation would
multiply what sets one picture apart at every block, and pictures not calibrated on would leave all bounds."""
LOGIT_STD = 2.0
"""Standard deviation of the logits on the calibration pictures; on others it is 2 to 3 times that."""
DEPTHWISE_LOW = 0.8
"""Depthwise kernels are uniform in (-0.8, 1) times the limit. A trained one smooths more than it differentiates; with
none of that, each block loses to float32 rounding what batch norm then amplifies: 10 dB over MobileNetV2."""
MIN_VARIANCE = 2.0**-10
"""Floor for channels that are constant on the calibration pictures; Keras's own epsilon is about this size."""
SIGNIFICANT_BITS = 8


def initialise(model: keras.Model, pictures: NDArray[np.float32], seed: int) -> None:
    """Give every layer of a functional model its weights, in place.

    Args:
        model: built with a float32 policy; one input.
        pictures: (N, height, width, 3) in the network's input range.
        seed: of the weights.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    weighted = [layer for layer in model.layers if layer.weights]
    classifier = weighted[-1] if weighted[-1].name in {"logits", "predictions"} else None

    def wrap(layer: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if layer.weights:
                _set_weights(layer, call, inputs, rng, is_classifier=layer is classifier)
            return call(inputs, *args, **kwargs)

        return run

    with computing_in_float64(model), wrapped_calls(model, wrap):
        called_on(model, pictures)


def round_bits(array: Array, bits: int = SIGNIFICANT_BITS) -> Array:
    """``array`` to ``bits`` significant binary digits, exactly representable in float32."""
    mantissa, exponent = np.frexp(array)
    rounded: Array = np.ldexp(np.rint(mantissa * 2**bits), exponent - bits)
    return rounded


def _set_weights(
    layer: keras.Layer, call: Callable[..., Any], inputs: Any, rng: np.random.Generator, *, is_classifier: bool
) -> None:
    if type(layer).__name__ == "BatchNormalization":
        _set_statistics(layer, np.asarray(inputs), rng)
        return
    shapes = [tuple(weight.shape) for weight in layer.weights]
    is_depthwise = type(layer).__name__ == "DepthwiseConv2D"
    fan_in = int(np.prod(shapes[0][:2] if is_depthwise else shapes[0][:-1]))
    limit = float(np.sqrt(6.0 / fan_in))  # He et al. 2015: keeps the variance through a rectifier
    kernel = _uniform(rng, -limit * (DEPTHWISE_LOW if is_depthwise else 1.0), limit, shapes[0])
    if len(shapes) == 1:
        layer.set_weights([kernel])
        return
    layer.set_weights([kernel, np.zeros(shapes[1])])
    output = _linear_output(layer, call, inputs)
    centre = output.mean(tuple(range(output.ndim - 1)))
    if is_classifier:  # centred, so that the picture and not the bias decides the class
        factor = _factor(LOGIT_STD, (output - centre).std())
        layer.set_weights([_float32(kernel * factor), round_bits(-centre * factor)])
    else:
        factor = _factor(GATE_STD, output.std())
        layer.set_weights([_float32(kernel * factor), _uniform(rng, -GATE_BIAS, GATE_BIAS, shapes[1])])


def _set_statistics(layer: keras.Layer, inputs: Array, rng: np.random.Generator) -> None:
    gamma, beta = (_uniform(rng, low, high, inputs.shape[-1:]) for low, high in (GAMMA, BETA))
    mean, variance = _moments(inputs)
    layer.set_weights([gamma, beta, round_bits(mean), np.maximum(round_bits(variance), MIN_VARIANCE)])


def _moments(inputs: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel, read in place: ``inputs`` may take hundreds of megabytes.

    E[x^2] - E[x]^2 loses the digits that mean and deviation differ by; of 16, 8 binary ones are wanted.
    """
    rows = inputs.reshape(-1, inputs.shape[-1])
    mean = np.ones(len(rows)) @ rows / len(rows)
    return mean, np.einsum("ij,ij->j", rows, rows) / len(rows) - mean**2


def _linear_output(layer: keras.Layer, call: Callable[..., Any], inputs: Any) -> Array:
    """What the layer gives before its activation."""
    import keras

    activation = layer.activation
    layer.activation = keras.activations.linear
    try:
        return np.asarray(call(inputs))
    finally:
        layer.activation = activation


def _factor(wanted: float, found: float) -> float:
    return float(round_bits(np.asarray(wanted / max(found, 2.0**-20))))


def _uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Array:
    """Uniform numbers that float32 holds exactly. (Normal ones would go through the platform's logarithm.)"""
    return _float32(low + (high - low) * rng.random(shape))


def _float32(array: Array) -> Array:
    return array.astype(np.float32).astype(np.float64)
