"""A TensorFlow function as a Network: what tf-keras and SavedModels come down to."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mbexport.accuracy.graph_float64 import in_float64
from mbexport.compare import sqnr_db
from mbexport.convert import first_line, onnx_from_graph
from mbexport.errors import ConversionError, MbexportError
from mbexport.layer_names import INPUT
from mbexport.spec import MAX_NATIVE_OPSET
from mbexport.thresholds import RAW_GRAPH_DB

if TYPE_CHECKING:
    import onnx
    import tensorflow as tf
    from numpy.typing import NDArray
    from onnx.reference import ReferenceEvaluator

    from mbexport.user_model.frozen import Frozen


class FunctionNetwork:
    """A network that is known by its TensorFlow graph alone."""

    def __init__(self, graphs: Frozen, picture_shape: tuple[int, int, int]) -> None:
        self.running = graphs.running
        self.traced = graphs.converting
        self.picture_shape = picture_shape

    @property
    def output_names(self) -> list[str]:
        return list(self.traced.outputs.values())

    def float32(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        results: list[NDArray[np.float32]] = self._session.run(
            list(self.traced.outputs), {self.traced.picture: pictures, **self.traced.weights}
        )
        return results

    def float64(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        """The raw ONNX graph in float64 under onnx's reference evaluator, for TensorFlow cannot retype a graph.

        Raises:
            ConversionError: the evaluator lacks an operator, the graph computes something else than TensorFlow, or an
                answer depends on the other pictures of its batch.
        """
        results, singles = self._evaluated(pictures), self.float32(pictures)
        for name, single, double in zip(self.output_names, singles, results, strict=True):
            ratio = sqnr_db(double, single) if single.shape == double.shape else -math.inf
            if not ratio >= RAW_GRAPH_DB:
                raise ConversionError(
                    f"output {name}: the graph that tf2onnx makes does not compute what TensorFlow does "
                    f"({ratio:.1f} dB, at least {RAW_GRAPH_DB:.0f} expected)"
                )
        self._refuse_mixed_pictures(pictures, singles)
        return results

    def _refuse_mixed_pictures(self, pictures: NDArray[np.float32], answers: list[NDArray[np.float32]]) -> None:
        """Keras 3.15's ``Model.export`` leaves the whole network in training mode where it holds a Resizing layer."""
        for name, answer, alone in zip(self.output_names, answers, self.float32(pictures[:1]), strict=True):
            ratio = sqnr_db(answer[:1], alone)
            if not ratio >= RAW_GRAPH_DB:
                raise ConversionError(
                    f"output {name}: the answer to a picture depends on the others of its batch ({ratio:.1f} dB), as "
                    "batch normalization in training mode makes it; Keras 3.15 exports networks with preprocessing "
                    "layers so; save the network as .keras and convert that, or export a function that calls it with "
                    "training=False"
                )

    def to_onnx(self, opset: int) -> onnx.ModelProto:
        """See ``Network.to_onnx``."""
        return onnx_from_graph(self.traced, opset=opset)

    def _evaluated(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        try:
            return [np.asarray(result) for result in self._evaluator.run(None, {INPUT: pictures.astype(np.float64)})]
        except MbexportError:
            raise
        except Exception as error:  # operators fail with what NumPy raises
            raise ConversionError(f"onnx's reference evaluator cannot run this network: {first_line(error)}") from error

    @cached_property
    def _evaluator(self) -> ReferenceEvaluator:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(in_float64(self.to_onnx(MAX_NATIVE_OPSET)))

    @cached_property
    def _session(self) -> tf.compat.v1.Session:
        import tensorflow as tf

        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        return tf.compat.v1.Session(graph=self.running, config=config)
