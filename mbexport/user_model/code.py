"""Code that loading a Keras file would run: refused unless the user trusts the file.

Lambda layers hold byte code. Keras 2 moreover looks up, by the name that a file gives, any public function of
TensorFlow (those that write and remove files and load libraries too) and calls it with constants of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport.errors import InputError
from mbexport.user_model.stored import objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mbexport.user_model.stored import StoredModel

# fmt: off
OPERATIONS = frozenset((
    "__operators__.add", "__operators__.getitem", "cast", "clip_by_value", "compat.v1.expand_dims",
    "compat.v1.gather", "compat.v1.nn.bias_add", "compat.v1.pad", "compat.v1.shape", "compat.v1.squeeze",
    "compat.v1.transpose", "concat", "expand_dims", "identity", "image.grayscale_to_rgb", "image.resize",
    "linalg.l2_normalize", "linalg.matmul", "math.abs", "math.add", "math.argmax", "math.divide", "math.exp",
    "math.greater", "math.l2_normalize", "math.log", "math.maximum", "math.minimum", "math.multiply", "math.negative",
    "math.pow", "math.reduce_max", "math.reduce_mean", "math.reduce_min", "math.reduce_sum", "math.rsqrt",
    "math.sigmoid", "math.softplus", "math.sqrt", "math.square", "math.subtract", "math.tanh", "math.truediv",
    "nn.avg_pool2d", "nn.bias_add", "nn.elu", "nn.gelu", "nn.leaky_relu", "nn.log_softmax", "nn.relu", "nn.relu6",
    "nn.sigmoid", "nn.silu", "nn.softmax", "nn.softplus", "nn.swish", "pad", "reshape", "reverse", "shape", "split",
    "squeeze", "stack", "stop_gradient", "tile", "transpose", "unstack", "where",
))
# fmt: on
"""TensorFlow's functions, by the names that Keras 2 writes, that compute from tensors and do nothing else."""

# fmt: off
ACTIVATIONS = frozenset((
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparsemax", "squareplus", "swish",
    "tanh", "tanh_shrink", "threshold",
))
# fmt: on
"""Keras's activation functions, the only ones that a file may name."""

_PYTHON = ("Lambda", "__lambda__")
_OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_CALLING_LAYERS = ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer")
_KERAS = ("keras", "tf_keras", "builtins")


def lambda_notes(stored: StoredModel, *, allow_unsafe: bool) -> list[str]:
    """A note on Lambda layers: they hold Python byte code, which loading the file would already run.

    Raises:
        InputError: there are some, or functions of Keras that are no activations, and they are not allowed; names them.
    """
    found = [layer for layer, described in objects(stored.config) if _class(described) in _PYTHON]
    names = ", ".join(dict.fromkeys(found))
    if allow_unsafe:
        return [f"Python code of the file was run, as it is: layer {names}"] if found else []
    if found:
        raise InputError(
            f"{stored.path} holds Python code, in layer {names} (a Lambda); if you trust the file, add --allow-unsafe, "
            "else replace the layer"
        )
    _refuse(stored, [(layer, name) for layer, described in objects(stored.config) for name in _functions(described)])
    return []


def refuse_calls(stored: StoredModel) -> None:
    """For Keras 2.

    Raises:
        InputError: a layer calls a function of TensorFlow that is none of ``OPERATIONS``; names layer and function.
    """
    _refuse(stored, [(layer, name) for layer, described in objects(stored.config) for name in _calls(described)])


def _refuse(stored: StoredModel, found: list[tuple[str, str]]) -> None:
    if found:
        names = ", ".join(dict.fromkeys(f"{name} (layer {layer})" for layer, name in found))
        raise InputError(
            f"{stored.path} calls functions that could do more than compute: {names}; "
            "if you trust the file, add --allow-unsafe"
        )


def _class(described: dict[str, Any]) -> str:
    """Without the module: Keras also finds ``layers.Lambda``."""
    return str(described["class_name"]).rpartition(".")[2]


def _functions(described: dict[str, Any]) -> Iterator[str]:
    """What would be taken from Keras's modules, by name, that is neither a class nor an activation."""
    if str(described.get("module", "keras")).partition(".")[0] not in _KERAS:
        return  # what is not Keras's own is reported as missing
    name = _class(described)
    if name == "function":
        if described.get("config") not in ACTIVATIONS:
            yield str(described.get("config"))
    elif not (name[:1].isupper() or name.startswith("__")) and name not in ACTIVATIONS:
        yield str(described["class_name"])


def _calls(described: dict[str, Any]) -> Iterator[str]:
    kind, config = _class(described), described.get("config")
    inner = config if isinstance(config, dict) else {}
    function = inner.get("function")
    if kind in _CALLING_LAYERS:
        yield kind
    if kind in _OPERATION_LAYERS and not (isinstance(function, str) and function in OPERATIONS):
        yield str(function)
    for key, value in inner.items():
        if key.endswith("activation") and isinstance(value, str) and value not in ACTIVATIONS:
            yield value
