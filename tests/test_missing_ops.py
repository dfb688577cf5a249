from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from mbexport.compare import sqnr_db
from mbexport.convert import onnx_from_keras
from mbexport.graph.guard import run_model
from mbexport.missing_ops import HANDLERS


def model(activation: str) -> Any:
    import keras

    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Activation(activation, name="curve")])


@pytest.mark.parametrize("activation", ["gelu", "celu"])
def test_as_keras_computes_it(activation: str) -> None:
    network = model(activation)
    shown = np.random.default_rng(0).normal(0, 3, (2, 4, 4, 3)).astype(np.float32)
    (found,) = run_model(ir.from_proto(onnx_from_keras(network, opset=17)), {"input": shown}).values()
    assert sqnr_db(np.asarray(network(shown)), found) > 130


@pytest.mark.parametrize("op_type", sorted(HANDLERS))
def test_tf2onnx_still_lacks_it(op_type: str) -> None:
    """Fails when tf2onnx has a handler of its own; then ours goes."""
    from tf2onnx.handler import tf_op

    known = {name for table in tf_op.get_opsets()[""] for name in table}  # the default domain, where its own are
    assert "Erf" in known  # the table is read rightly
    assert op_type not in known
