"""An ONNX graph in NumPy: the same graph in float64 is the truth where Keras is not at hand.

onnx's own reference evaluator runs it, since ONNX Runtime has no float64 convolution.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


def evaluate(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """The model's outputs by name; a float input is given in the type that the model takes.

    Raises:
        EngineError: the evaluator cannot run the model.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    feeds = {
        name: array.astype(np.float64) if kinds[name] == onnx.TensorProto.DOUBLE else array
        for name, array in inputs.items()
    }
    names = [output.name for output in model.graph.output]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True))
        except MemoryError:
            raise
        except Exception as error:  # operators fail with what NumPy raises
            what = str(error).strip().partition("\n")[0] or type(error).__name__
            raise EngineError(f"onnx's reference evaluator cannot run this network: {what}") from error


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every float32 is a float64: weights, constants, and what Cast makes."""
    import onnx
    from onnx import TensorProto, numpy_helper

    def doubled(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for tensor in copied.graph.initializer:
        doubled(tensor)
    for value in (*copied.graph.input, *copied.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in copied.graph.node:
        for attribute in node.attribute:
            doubled(attribute.t)
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    return copied
