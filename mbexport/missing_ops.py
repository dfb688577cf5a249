"""Operations that tf2onnx (1.17) has no handler for, in the terms of those that it has.

Keras's ``gelu`` is written with Erfc and its ``celu`` with Expm1. ``tests/test_missing_ops.py`` tells when tf2onnx has
handlers of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _erfc(graph: Any, node: Any, name: str, _: object) -> None:
    """1 - erf(x)."""
    _replaced(graph, node, "Erf", name, lambda result, one: ("Sub", [one, result]))


def _expm1(graph: Any, node: Any, name: str, _: object) -> None:
    """exp(x) - 1. Near 0 it keeps the absolute precision of float32, and an activation's result needs no more."""
    _replaced(graph, node, "Exp", name, lambda result, one: ("Sub", [result, one]))


def _replaced(graph: Any, node: Any, op_type: str, name: str, difference: Any) -> None:
    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    graph.remove_node(node.name)
    inner = graph.make_node(op_type, node.input, name=f"{name}/{op_type}", shapes=[shape], dtypes=[dtype])
    one = graph.make_const(f"{name}/one", np.array(1.0, np.float32))
    outer, inputs = difference(inner.output[0], one.output[0])
    graph.make_node(outer, inputs, name=name, outputs=node.output, shapes=[shape], dtypes=[dtype])


HANDLERS: dict[str, Any] = {"Erfc": (_erfc, []), "Expm1": (_expm1, [])}
"""For ``custom_op_handlers``: TensorFlow's operation -> (handler, arguments)."""
