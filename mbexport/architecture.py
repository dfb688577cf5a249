"""ModelSpec -> the layers that Keras builds for it, with their shapes and costs, by arithmetic alone.

The block tables and the rounding rule are those of ``keras.applications.MobileNetV2``, ``MobileNetV3Large`` and
``MobileNetV3Small`` (Keras 3); the tests hold every figure against the networks that Keras really builds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from mbexport.spec import ModelSpec

Kind = Literal["conv", "depthwise", "dense"]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer with weights; ``height`` and ``width`` are those of its output, in elements."""

    name: str
    """Keras's name of the convolution or dense layer."""
    kind: Kind
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    batch_norm: bool
    """Whether batch norm follows; where none does, the layer has a bias."""

    @property
    def kernel_elements(self) -> int:
        """Kernel height x width x channels that each output sees x output channels."""
        seen = 1 if self.kind == "depthwise" else self.in_channels
        return self.kernel**2 * seen * self.out_channels

    @property
    def batch_norm_parameters(self) -> int:
        """Gamma, beta, moving mean and moving variance."""
        return 4 * self.out_channels if self.batch_norm else 0

    @property
    def parameters(self) -> int:
        """As Keras counts them: kernel, then batch norm's four vectors or the bias."""
        return self.kernel_elements + (self.batch_norm_parameters or self.out_channels)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one picture; biases and batch norm, which folds into the kernel, are free."""
        return self.kernel_elements * self.height * self.width

    @property
    def activation_elements(self) -> int:
        """Elements of the output for one picture."""
        return self.out_channels * self.height * self.width


class Block(NamedTuple):
    """An inverted residual block: expand, depthwise, squeeze-excite, project.

    ``filters`` is before alpha; ``kernel`` 5 becomes 3 in minimalistic networks, which have no squeeze-excite either.
    """

    expansion: float
    filters: int
    stride: int
    kernel: int = 3
    squeeze_excite: bool = False


_V2 = (
    Block(1, 16, 1),
    *(Block(6, 24, stride) for stride in (2, 1)),
    *(Block(6, 32, stride) for stride in (2, 1, 1)),
    *(Block(6, 64, stride) for stride in (2, 1, 1, 1)),
    *(Block(6, 96, 1) for _ in range(3)),
    *(Block(6, 160, stride) for stride in (2, 1, 1)),
    Block(6, 320, 1),
)
_LARGE = (
    Block(1, 16, 1),
    Block(4, 24, 2),
    Block(3, 24, 1),
    *(Block(3, 40, stride, 5, squeeze_excite=True) for stride in (2, 1, 1)),
    Block(6, 80, 2),
    Block(2.5, 80, 1),
    *(Block(2.3, 80, 1) for _ in range(2)),
    *(Block(6, 112, 1, squeeze_excite=True) for _ in range(2)),
    *(Block(6, 160, stride, 5, squeeze_excite=True) for stride in (2, 1, 1)),
)
_SMALL = (
    Block(1, 16, 2, squeeze_excite=True),
    Block(72 / 16, 24, 2),
    Block(88 / 24, 24, 1),
    Block(4, 40, 2, 5, squeeze_excite=True),
    *(Block(6, 40, 1, 5, squeeze_excite=True) for _ in range(2)),
    *(Block(3, 48, 1, 5, squeeze_excite=True) for _ in range(2)),
    *(Block(6, 96, stride, 5, squeeze_excite=True) for stride in (2, 1, 1)),
)
_BLOCKS = {"v2": _V2, "large": _LARGE, "small": _SMALL}
_LAST_FILTERS = {"v2": 1280, "large": 1280, "small": 1024}
"""Of the layer before the classifier. Alpha widens it above 1 only."""


def layers(spec: ModelSpec) -> list[Layer]:
    """The layers with weights, in the order of Keras's ``model.layers``; here and below at ``spec.size``."""
    walk = _Walk(*spec.size)
    if spec.variant == "v2":
        _walk_v2(walk, spec)
    else:
        _walk_v3(walk, spec)
    return walk.layers


def parameters(spec: ModelSpec) -> int:
    """What Keras's ``count_params()`` answers, batch norm's moving statistics included."""
    return sum(layer.parameters for layer in layers(spec))


def trainable_parameters(spec: ModelSpec) -> int:
    """What timm counts: all but batch norm's moving mean and variance."""
    return sum(layer.parameters - layer.batch_norm_parameters // 2 for layer in layers(spec))


def parameters_without_batch_norm(spec: ModelSpec) -> int:
    """What TF-slim's tables count: kernels, and the biases of the layers without batch norm."""
    return sum(layer.parameters - layer.batch_norm_parameters for layer in layers(spec))


def macs(spec: ModelSpec) -> int:
    """Multiply-accumulates of all convolutions and dense layers, squeeze-excite included, for one picture."""
    return sum(layer.macs for layer in layers(spec))


def activation_elements(spec: ModelSpec) -> int:
    """Elements of the input and of every layer's output together, for one picture."""
    return 3 * math.prod(spec.size) + sum(layer.activation_elements for layer in layers(spec))


def largest_activation_elements(spec: ModelSpec) -> int:
    """Elements of the largest tensor, the input included, for one picture."""
    return max(3 * math.prod(spec.size), *(layer.activation_elements for layer in layers(spec)))


def output_shape(spec: ModelSpec) -> tuple[int, ...]:
    """The network's output without the batch axis: (classes,), (channels,), or (height, width, channels)."""
    last = layers(spec)[-1]
    if spec.include_top or spec.pooling != "none":
        return (last.out_channels,)
    return last.height, last.width, last.out_channels


class _Walk:
    """The map as it stands (height, width, channels) and the layers passed so far."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width, self.channels = height, width, 3
        self.layers: list[Layer] = []

    def add(
        self,
        name: str,
        filters: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        kind: Kind = "conv",
        pooled: bool = False,
    ) -> None:
        """Append a layer with batch norm, or, where ``pooled``, one with a bias that sees each channel's mean only.

        Keras's "same" padding and its ``correct_pad`` both give ceil(side / stride). A pooled layer leaves the map's
        size as it is: squeeze-excite multiplies its answer into that map.
        """
        if not pooled:
            self.height, self.width = -(-self.height // stride), -(-self.width // stride)
        self.layers.append(
            Layer(
                name=name,
                kind=kind,
                kernel=kernel,
                stride=stride,
                in_channels=self.channels,
                out_channels=filters,
                height=1 if pooled else self.height,
                width=1 if pooled else self.width,
                batch_norm=not pooled,
            )
        )
        self.channels = filters


def _walk_v2(walk: _Walk, spec: ModelSpec) -> None:
    walk.add("Conv1", _round_to_8(32 * spec.alpha), kernel=3, stride=2)
    for index, block in enumerate(_V2):
        prefix = f"block_{index}_" if index else "expanded_conv_"
        if index:
            walk.add(f"{prefix}expand", int(block.expansion) * walk.channels)
        walk.add(f"{prefix}depthwise", walk.channels, kernel=3, stride=block.stride, kind="depthwise")
        walk.add(f"{prefix}project", _round_to_8(int(block.filters * spec.alpha)))
    walk.add("Conv_1", _last_filters(spec))
    if spec.include_top:
        walk.add("predictions", spec.classes, kind="dense", pooled=True)


def _walk_v3(walk: _Walk, spec: ModelSpec) -> None:
    walk.add("conv", 16, kernel=3, stride=2)
    for index, block in enumerate(_BLOCKS[spec.variant]):
        prefix = f"expanded_conv_{index}_" if index else "expanded_conv_"
        if index:
            walk.add(f"{prefix}expand", _round_to_8(walk.channels * block.expansion))
        kernel = 3 if spec.minimalistic else block.kernel
        walk.add(f"{prefix}depthwise", walk.channels, kernel=kernel, stride=block.stride, kind="depthwise")
        if block.squeeze_excite and not spec.minimalistic:
            channels = walk.channels
            walk.add(f"{prefix}squeeze_excite_conv", _round_to_8(channels * 0.25), pooled=True)
            walk.add(f"{prefix}squeeze_excite_conv_1", channels, pooled=True)
        walk.add(f"{prefix}project", _round_to_8(block.filters * spec.alpha))
    walk.add("conv_1", _round_to_8(walk.channels * 6))
    if spec.include_top:
        walk.add("conv_2", _last_filters(spec), pooled=True)
        walk.add("logits", spec.classes, pooled=True)


def _last_filters(spec: ModelSpec) -> int:
    filters = _LAST_FILTERS[spec.variant]
    return _round_to_8(filters * spec.alpha) if spec.alpha > 1 else filters


def _round_to_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never below nine tenths of ``channels`` (Keras's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
