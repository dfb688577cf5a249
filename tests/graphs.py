"""Small ONNX graphs for the passes' tests, and what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray


def model(
    nodes: Sequence[onnx.NodeProto],
    input_shape: Sequence[int | str | None],
    outputs: Mapping[str, Sequence[int | str | None]],
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> ir.Model:
    """A model with the float input ``x``; constants keep their NumPy dtype."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ir.from_proto(proto)


def run(graph: ir.Model, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Every output, from onnx's reference evaluator: independent of the runtime that the guards use."""
    proto = ir.to_proto(graph)
    names = [output.name for output in proto.graph.output]
    return dict(zip(names, ReferenceEvaluator(proto).run(names, {"x": x}), strict=True))


def ops(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def assert_same(before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]) -> None:
    assert list(before) == list(after)
    for name, array in before.items():
        assert after[name].shape == array.shape
        scale = max(float(np.abs(array).max(initial=0.0)), 1e-30)
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5 * scale)


def noise(shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)
