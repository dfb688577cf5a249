"""Compute what does not depend on the input, and drop what nothing reads. All of it onnxscript's and onnx-ir's work."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

_NO_LIMIT_BYTES = 2**40


class FoldConstants(ir.passes.InPlacePass):
    """Fold with onnx's reference evaluator, which is NumPy: the bytes do not depend on the CPU's instruction set."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript import optimizer

        before = model.graph.num_nodes()
        optimizer.fold_constants(
            model, onnx_shape_inference=False, input_size_limit=_NO_LIMIT_BYTES, output_size_limit=_NO_LIMIT_BYTES
        )
        ir.passes.Sequential(
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
        )(model)
        return ir.passes.PassResult(model, modified=model.graph.num_nodes() != before)
