"""What one inference costs, counted from the spec alone: the terms that a latency is fitted to.

Engines on CPUs hold maps in blocks of as many channels as a vector register takes, so channels count as rounded up to
whole blocks: 24 channels cost as much as 32 with AVX-512.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from mbexport.architecture import Layer, layers

if TYPE_CHECKING:
    from mbexport.spec import ModelSpec

_FLOAT_BYTES = 4
_KNEES_BYTES = (4e6, 8e6, 16e6)
"""Sizes of caches: weights beyond one of these come from a slower memory at every call. Which of them a machine has is
found by the fit."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one network on one picture; bytes are those of float32."""

    layers: int
    """Convolutions on maps: each is a call of a kernel, with a cost of its own."""
    pooled_layers: int
    """The same on a mean over each channel: squeeze-excite and the classifier."""
    first_macs: int
    """Multiply-accumulates of the first convolution, which sees three channels and fills no block."""
    pointwise_macs: int
    depthwise_macs: int
    activation_bytes: int
    """What the convolutions on maps read and write, weights apart."""
    gated_bytes: int
    """The maps that squeeze-excite averages and then scales."""
    weight_bytes: int

    @property
    def terms(self) -> tuple[float, ...]:
        """What each fitted rate is multiplied by. Weights count from zero and again beyond each cache's size, so that
        their cost may bend upwards.
        """
        beyond = (max(0.0, self.weight_bytes - knee) for knee in _KNEES_BYTES)
        return tuple(map(float, msgspec.structs.astuple(self))) + tuple(beyond)


def cost(spec: ModelSpec, block: int = 1) -> Cost:
    """Count a network at ``spec.size``.

    Args:
        spec: the network.
        block: channels that an engine computes at once, see :func:`block_channels`; with 1 the multiply-accumulates
            are those of the network, without the pooled layers'.
    """
    first, *others = (layer for layer in layers(spec) if layer.batch_norm)  # on maps, in order
    pooled = [layer for layer in layers(spec) if not layer.batch_norm]
    maps = [first, *others]
    return Cost(
        layers=len(maps),
        pooled_layers=len(pooled),
        first_macs=first.macs,
        pointwise_macs=sum(_macs(layer, block) for layer in others if layer.kind == "conv"),
        depthwise_macs=sum(_macs(layer, block) for layer in others if layer.kind == "depthwise"),
        activation_bytes=_FLOAT_BYTES * sum(_input_elements(layer) + layer.activation_elements for layer in maps),
        gated_bytes=_FLOAT_BYTES * _gated_elements(layers(spec)),
        weight_bytes=_FLOAT_BYTES * sum(layer.kernel_elements for layer in (*maps, *pooled)),
    )


def block_channels(instruction_sets: list[str]) -> int:
    """float32 numbers in the widest vector register that the instruction sets name: 16, 8 or 4."""
    if "avx512f" in instruction_sets:
        return 16
    return 8 if "avx" in instruction_sets else 4


def _macs(layer: Layer, block: int) -> int:
    seen = 1 if layer.kind == "depthwise" else _up(layer.in_channels, block)
    return layer.kernel**2 * seen * _up(layer.out_channels, block) * layer.height * layer.width


def _up(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _input_elements(layer: Layer) -> int:
    return layer.in_channels * layer.height * layer.width * layer.stride**2


def _gated_elements(found: list[Layer]) -> int:
    """Squeeze-excite's two layers stand behind the depthwise convolution whose map they scale."""
    return sum(
        before.activation_elements
        for before, layer in itertools.pairwise(found)
        if before.kind == "depthwise" and not layer.batch_norm
    )
