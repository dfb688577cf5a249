"""A network that can be exported, whatever it came from, and what is said of it in the artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mbexport.convert import onnx_from_keras
from mbexport.errors import ConversionError
from mbexport.float64 import computing_in_float64
from mbexport.interpolation import interpolating_in
from mbexport.layer_calls import called_on, every_layer
from mbexport.layer_names import output_names

if TYPE_CHECKING:
    import keras
    import onnx
    from numpy.typing import NDArray


class Network(Protocol):
    """One picture in, channels last; one or more tensors out; with its weights, in inference mode."""

    @property
    def picture_shape(self) -> tuple[int | None, int | None, int]:
        """Height and width in pixels, None where they are open, and channels."""
        ...

    @property
    def output_names(self) -> list[str]:
        """One name per output tensor, unique, as they will be in the file."""
        ...

    def float32(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for (N, height, width, channels), as the framework computes them."""
        ...

    def float64(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        """The ground truth: the same weights and pictures, computed in float64."""
        ...

    def to_onnx(self, opset: int) -> onnx.ModelProto:
        """As the converter writes it, nothing simplified: input ``input``, dynamic batch, outputs by their names.

        Raises:
            ConversionError: the converter cannot express an operation.
        """
        ...


class KerasNetwork:
    """A Keras 3 model with one input, float32."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    @property
    def picture_shape(self) -> tuple[int | None, int | None, int]:
        height, width, channels = self.model.inputs[0].shape[1:]
        return height, width, channels

    @property
    def output_names(self) -> list[str]:
        return output_names(self.model)

    def float32(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        import tensorflow as tf

        with tf.device("CPU:0"), interpolating_in(np.float32):
            return _arrays(called_on(self.model, pictures))

    def float64(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        """See ``Network.float64``.

        Raises:
            ConversionError: a layer with code of its own computes in float32 only.
        """
        import tensorflow as tf

        try:
            with tf.device("CPU:0"), computing_in_float64(self.model):
                return _arrays(called_on(self.model, pictures))
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            names = [layer.name for layer, _ in every_layer(self.model) if type(layer).__name__ == "Lambda"]
            if not names:
                raise
            raise ConversionError(
                f"layer {', '.join(names)} (a Lambda) computes in float32 only, so there is no float64 truth to check "
                "against; let it take its constants' type from its input, or replace the layer"
            ) from error

    def to_onnx(self, opset: int) -> onnx.ModelProto:
        return onnx_from_keras(self.model, opset=opset)


def _arrays(results: Any) -> list[NDArray[Any]]:
    import keras

    return [np.asarray(result) for result in keras.tree.flatten(results)]
