"""Weights that are not the network's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fault_bench import places
from fault_bench.fault import fault

if TYPE_CHECKING:
    import onnx

    from fault_bench.draft import Draft

    Rng = np.random.Generator

KERAS_EPSILON, OTHER_EPSILON = 1e-3, 1e-5
"""MobileNets' batch norm, and the default of PyTorch and of ONNX."""


@fault("one depthwise kernel transposed", places.depthwise)
def transposed_depthwise(draft: Draft, conv: onnx.NodeProto, _: Rng) -> None:
    """Height and width confused in a framework's kernel layout, in one layer."""
    draft.set_array(conv.input[1], draft.array(conv.input[1]).swapaxes(2, 3))


@fault("one kernel's noise at 1%", places.convolutions)
def kernel_noise(draft: Draft, conv: onnx.NodeProto, rng: Rng) -> None:
    """A lossy compression that was not announced: noise 40 dB under the kernel."""
    kernel = draft.array(conv.input[1])
    level = 0.01 * np.sqrt(np.mean(np.square(kernel)))
    draft.set_array(conv.input[1], kernel + rng.normal(0, level, kernel.shape))


@fault("two output channels swapped", places.convolutions)
def swapped_channels(draft: Draft, conv: onnx.NodeProto, rng: Rng) -> None:
    """A pruning or reordering tool that forgot the readers."""
    count = draft.array(conv.input[1]).shape[0]
    order = np.arange(count)
    pair = rng.choice(count, 2, replace=False)
    order[pair] = order[pair[::-1]]
    for tensor in conv.input[1:]:
        draft.set_array(tensor, draft.array(tensor)[order])


@fault("batch-norm epsilon 1e-5 for 1e-3", places.normalised)
def batch_norm_epsilon(draft: Draft, conv: onnx.NodeProto, _: Rng) -> None:
    """Another framework's default, in one layer.

    Folded, kernel' = kernel s and bias' = beta - mean s with s = gamma / sqrt(variance + epsilon), so that another
    epsilon multiplies kernel' and bias' - beta by the ratio of the roots.
    """
    norm = draft.batch_norms[conv.name]
    ratio = np.sqrt((norm.variance + KERAS_EPSILON) / (norm.variance + OTHER_EPSILON))
    _, kernel, bias = conv.input
    draft.set_array(kernel, draft.array(kernel) * ratio[:, None, None, None])
    draft.set_array(bias, (draft.array(bias) - norm.beta) * ratio + norm.beta)


@fault("one bias dropped", places.biased)
def dropped_bias(draft: Draft, node: onnx.NodeProto, _: Rng) -> None:
    """A pattern matched without its third input."""
    draft.drop_last_input(node)


@fault("a weight in fp16", places.convolutions)
def half_precision(draft: Draft, conv: onnx.NodeProto, _: Rng) -> None:
    """Stored in half precision on the way: the type is float32 again, the numbers are not."""
    draft.set_array(conv.input[1], draft.array(conv.input[1]).astype(np.float16))


@fault("a NaN", places.convolutions)
def not_a_number(draft: Draft, conv: onnx.NodeProto, rng: Rng) -> None:
    """One damaged number of a kernel."""
    kernel = draft.array(conv.input[1]).copy()
    kernel.flat[rng.integers(kernel.size)] = np.nan
    draft.set_array(conv.input[1], kernel)
