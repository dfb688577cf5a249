"""The arithmetic against the networks that Keras builds."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest

from mbexport import architecture
from mbexport.spec import ModelSpec

SPECS = [
    ModelSpec(variant="v2"),
    ModelSpec(variant="v2", alpha=0.35, height=96, width=96),
    ModelSpec(variant="v2", alpha=0.6, height=97, width=130, classes=10),
    ModelSpec(variant="v2", alpha=1.4, height=45, width=33, include_top=False),
    ModelSpec(variant="v2", alpha=0.02, height=32, width=32, include_top=False, pooling="max"),
    ModelSpec(variant="large"),
    ModelSpec(variant="large", alpha=0.75, height=97, width=130),
    ModelSpec(variant="large", alpha=1.25, height=192, width=256, classes=3),
    ModelSpec(variant="large", minimalistic=True, height=111, width=45),
    ModelSpec(variant="large", alpha=0.02, height=32, width=32, include_top=False),
    ModelSpec(variant="small"),
    ModelSpec(variant="small", alpha=0.75, height=97, width=130, include_top=False, pooling="avg"),
    ModelSpec(variant="small", alpha=1.25, height=33, width=65, classes=1),
    ModelSpec(variant="small", alpha=2.3, minimalistic=True, height=64, width=64),
]


@cache
def keras_model(spec: ModelSpec) -> Any:
    applications = pytest.importorskip("keras").applications
    build = {
        "v2": applications.MobileNetV2,
        "large": applications.MobileNetV3Large,
        "small": applications.MobileNetV3Small,
    }[spec.variant]
    return build(
        input_shape=(*spec.size, 3),
        alpha=spec.alpha,
        include_top=spec.include_top,
        weights=None,
        classes=spec.classes,
        pooling=None if spec.pooling == "none" else spec.pooling,
        **({"minimalistic": spec.minimalistic} if spec.is_v3 else {}),
    )


def weighted_layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if layer.weights and type(layer).__name__ != "BatchNormalization"]


def map_size(layer: Any) -> tuple[int, ...]:
    return tuple(layer.output.shape[1:-1]) or (1, 1)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.slug)
class TestAgainstKeras:
    def test_layers(self, spec: ModelSpec) -> None:
        kinds = {"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "Dense": "dense"}
        expected = [
            (
                layer.name,
                kinds[type(layer).__name__],
                getattr(layer, "kernel_size", (1, 1)),
                getattr(layer, "strides", (1, 1)),
                layer.input.shape[-1],
                layer.output.shape[-1],
                map_size(layer),
            )
            for layer in weighted_layers(keras_model(spec))
        ]
        found = [
            (
                layer.name,
                layer.kind,
                (layer.kernel, layer.kernel),
                (layer.stride, layer.stride),
                layer.in_channels,
                layer.out_channels,
                (layer.height, layer.width),
            )
            for layer in architecture.layers(spec)
        ]
        assert found == expected

    def test_parameters(self, spec: ModelSpec) -> None:
        model = keras_model(spec)
        norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
        trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        assert architecture.parameters(spec) == model.count_params()
        assert architecture.trainable_parameters(spec) == trainable
        assert architecture.parameters_without_batch_norm(spec) == model.count_params() - sum(
            norm.count_params() for norm in norms
        )

    def test_macs(self, spec: ModelSpec) -> None:
        counted = sum(
            math.prod(layer.kernel.shape) * math.prod(map_size(layer)) for layer in weighted_layers(keras_model(spec))
        )
        assert architecture.macs(spec) == counted

    def test_activations(self, spec: ModelSpec) -> None:
        model = keras_model(spec)
        sizes = [math.prod(layer.output.shape[1:]) for layer in weighted_layers(model)]
        sizes.append(math.prod(model.input.shape[1:]))
        assert architecture.activation_elements(spec) == sum(sizes)
        assert architecture.largest_activation_elements(spec) == max(sizes)

    def test_output_shape(self, spec: ModelSpec) -> None:
        assert architecture.output_shape(spec) == keras_model(spec).output.shape[1:]


def test_no_activation_of_padding_or_pooling_is_larger() -> None:
    """What the table leaves out (Pad adds a border) exceeds the largest convolution's output by a border only."""
    spec = ModelSpec(variant="v2")
    model = keras_model(spec)
    largest = max(math.prod(layer.output.shape[1:]) for layer in model.layers)
    assert architecture.largest_activation_elements(spec) <= largest
    assert largest < 1.03 * architecture.largest_activation_elements(spec)
