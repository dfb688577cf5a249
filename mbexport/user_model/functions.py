"""A Python call into TensorFlow -> FunctionNetwork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport.layer_names import unique_outputs
from mbexport.user_model.frozen import frozen
from mbexport.user_model.function_network import FunctionNetwork
from mbexport.user_model.suitable import TensorSpec, check_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import tensorflow as tf


def network_of(
    path: Path, call: Callable[[tf.Tensor], list[tf.Tensor]], shape: tuple[int, int, int], names: Iterable[str]
) -> tuple[FunctionNetwork, list[str]]:
    """The network that ``call`` computes for pictures of ``shape``, and notes on what was changed in it.

    Raises:
        ConversionError: the network draws random numbers.
        InputError: an output holds no float32 numbers for each picture.
    """
    import tensorflow as tf

    with tf.device("CPU:0"):
        function = tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec((None, *shape)))
        graphs = frozen(function, unique_outputs(names))
    outputs = graphs.converting.outputs
    results = [(name, graphs.running.get_tensor_by_name(tensor)) for tensor, name in outputs.items()]
    check_outputs(path, [_spec(name, tensor) for name, tensor in results])
    return FunctionNetwork(graphs, shape), graphs.notes


def _spec(name: str, tensor: Any) -> TensorSpec:
    return TensorSpec(name, None if tensor.shape.rank is None else tuple(tensor.shape), tensor.dtype.name)
