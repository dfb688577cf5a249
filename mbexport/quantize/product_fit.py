"""One product's weights, settled on what really reaches it: in 8 bits, or in float32 where it stays so.

What stays in float32 reads rounded numbers too, and an engine may compute it in bf16. Nearly all that bf16 costs a
MobileNet is the rounding of weights, most of all the first depthwise product's (of up to 47, which nearly cancel): all
weights rounded to bf16 leave V2 15.8 dB, all activations 31.6 dB. So those weights are fitted as 8-bit ones are, to
numbers that bf16 holds, and lose nothing any more when the engine rounds them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from mbexport.quantize import fitting
from mbexport.quantize.fitting import FloatWeights, Weights
from mbexport.quantize.node_runs import run_node
from mbexport.quantize.samples import take

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from mbexport.quantize.grids import Grid
    from mbexport.quantize.network import Product
    from mbexport.quantize.node_runs import Batches
    from mbexport.quantize.recipe import Recipe


@dataclass(frozen=True)
class Fitter:
    """``levels`` is the largest 8-bit weight; ``bf16``, whether an engine may compute in it what is not in 8 bits."""

    recipe: Recipe
    levels: int
    opsets: Collection[onnx.OperatorSetIdProto]
    bf16: bool

    def fit(
        self,
        product: Product,
        grid: Grid | None,
        inputs: Batches,
        exact: Batches,
        *,
        is_divided: bool = False,
        spent: bool = False,
    ) -> tuple[Weights | FloatWeights, Batches]:
        """Weights, and what the product gives with them.

        Args:
            product: of the float network.
            grid: of its inputs, for 8-bit weights; without, it stays in float32.
            inputs: as they reach it.
            exact: what the float network's gives.
            is_divided: a scale a channel will be folded into the weights, after which bf16 would not hold them.
            spent: nothing else reads ``inputs`` any more, which are let go batch by batch.
        """
        if self.bf16 and grid is None:
            inputs, spent = _in_bf16(inputs, spent=spent), True
        kernel, covariance = self._refitted(product, inputs, exact)
        weights: Weights | FloatWeights
        if grid is None:
            weights = self._kept(product, kernel, covariance, is_divided=is_divided)
        else:
            weights = self._rounded(product, grid, kernel, covariance)
        answers = self._answers(product, weights, inputs, spent=spent)
        # A pooled map gives one number a picture: too few to tell a mean's error from chance.
        if self.recipe.bias_correction and exact[0].ndim == 4 and exact[0][0, 0].size > 1:
            weights = replace(weights, bias=weights.bias + _correct(answers, exact))
        return weights, answers

    def _refitted(
        self, product: Product, inputs: Batches, exact: Batches
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The kernel (groups, outputs, inputs), and the inputs' covariance: 0 where nothing is to be made up for."""
        kernel = product.kernel.astype(np.float64).reshape(product.groups, -1, product.kernel[0].size)
        size = kernel.shape[2]
        covariance = np.zeros((product.groups, size, size))
        if self.recipe.refitting or self.recipe.making_up:
            samples = take(product, inputs, exact)
            if self.recipe.refitting and len(samples.inputs) > 2 * size:
                kernel = fitting.refitted(kernel, samples)
            if self.recipe.making_up:
                covariance = samples.covariance
        return kernel, covariance

    def _rounded(
        self, product: Product, grid: Grid, kernel: NDArray[np.float64], covariance: NDArray[np.float64]
    ) -> Weights:
        least = np.abs(product.bias) / product.by_input(grid.scale) / fitting.MAX_BIAS
        steps, scales = fitting.rounded(kernel, covariance, self.levels, least.reshape(kernel.shape[:2]))
        return Weights(steps.reshape(product.kernel.shape), scales.reshape(-1), product.bias)

    def _kept(
        self, product: Product, kernel: NDArray[np.float64], covariance: NDArray[np.float64], *, is_divided: bool
    ) -> FloatWeights:
        if self.bf16 and not is_divided:
            kernel = fitting.rounded_to_bf16(kernel, covariance)
        return FloatWeights(kernel.reshape(product.kernel.shape).astype(np.float32), product.bias)

    def _answers(self, product: Product, weights: Weights | FloatWeights, inputs: Batches, *, spent: bool) -> Batches:
        node = onnx.NodeProto()
        node.CopyFrom(product.node)
        del node.input[:]
        node.input.extend(["x", "kernel", "bias"])
        constants = {"kernel": product.stored(weights.as_float), "bias": weights.bias}
        return run_node(node, {"x": inputs}, constants, self.opsets, ["x"] if spent else [])[0]


def _in_bf16(batches: Batches, *, spent: bool) -> Batches:
    """Rounded, in the place of each batch where nothing else reads them."""
    found = batches if spent else list(batches)
    for at, batch in enumerate(batches):
        found[at] = fitting.bf16(batch)
    return found


def _correct(answers: Batches, exact: Batches) -> NDArray[np.float32]:
    """Each channel's mean error, which is added to ``answers``, in place."""
    errors = [(one - other).mean(axis=(0, 2, 3), dtype=np.float64) for one, other in zip(exact, answers, strict=True)]
    missing: NDArray[np.float32] = np.average(errors, axis=0, weights=[len(batch) for batch in exact]).astype(
        np.float32
    )
    for at, batch in enumerate(answers):
        answers[at] = batch + missing[:, None, None]
    return missing
