"""TF-slim checkpoints of MobileNetV2 and V3, as research/slim of tensorflow/models trains and publishes them.

The axes are Keras's already. Where training kept a moving average of a variable (``NAME/ExponentialMovingAverage``),
that is what was published and what is taken. Class 0 of the 1001 is the background, which Keras's 1000 lack.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import WeightsError
from mbexport.manifest import WeightsOrigin
from mbexport.weights.shapes import fitting_arrays, placed_layers, refuse_left_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras
    from numpy.typing import NDArray

    from mbexport.spec import ModelSpec

    Variables = dict[str, NDArray[np.float32]]

INDEX = ".index"
AVERAGE = "/ExponentialMovingAverage"
SLIM_CLASSES, CLASSES = 1001, 1000
_TABLE_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
"""What LevelDB's tables end in, and an index is one (tensorflow/core/lib/io/format.h)."""
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
_LEAVES = frozenset({"weights", "biases", "depthwise_weights", "gamma", "beta", "moving_mean", "moving_variance"})
"""What a network's own variables end in; an optimizer's slots, averages and counters end otherwise."""
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_OUTSIDE = {
    "Conv1": "Conv",
    "conv": "Conv",
    "Conv_1": "Conv_1",
    "conv_1": "Conv_1",
    "conv_2": "Conv_2",
    "logits": "Logits/Conv2d_1c_1x1",
    "predictions": "Logits/Conv2d_1c_1x1",
}
"""Keras's layers outside the blocks; V2's begin with a capital."""
_BLOCK_LAYER = re.compile(r"(?:expanded_conv|block)(_\d+)?_(expand|depthwise|project|squeeze_excite_conv)(_1)?")
_TOP = ("Logits/", "Conv_2/")


def check(prefix: str, spec: ModelSpec) -> list[Path]:
    """The checkpoint's files, the index first; cheap, before TensorFlow is imported.

    Args:
        prefix: what the files' names begin with: ``FOLDER/model.ckpt`` for ``FOLDER/model.ckpt.index``.
        spec: the network that it should hold.

    Raises:
        WeightsError: a file is missing, empty or no checkpoint's, or the checkpoint is of the other family.
    """
    if prefix.endswith(INDEX) or _DATA.search(prefix):
        start = _DATA.sub("", prefix).removesuffix(INDEX)
        raise WeightsError(f"{prefix} is one file of a checkpoint; give what all its files begin with: slim:{start}")
    index = Path(f"{prefix}{INDEX}")
    if not prefix or not index.is_file():
        raise WeightsError(f"no checkpoint at {prefix!r}: there is no {index}; give slim:PREFIX as in PREFIX.index")
    if Path(prefix).is_dir():  # TensorFlow would open the newest checkpoint inside
        raise WeightsError(f"checkpoint {prefix} shares its name with a folder; rename the folder, or move the files")
    shards = sorted(index.parent.glob(f"{glob.escape(index.stem)}.data-?????-of-?????"))
    if not shards:
        raise WeightsError(f"checkpoint {prefix} has no {index.stem}.data-00000-of-00001 beside its index")
    try:
        table = index.read_bytes()
    except OSError as error:
        raise WeightsError(f"checkpoint file {index} cannot be read: {error.strerror}") from error
    if not table.endswith(_TABLE_MAGIC):
        raise WeightsError(f"checkpoint file {index} is damaged or truncated (it does not end as an index does)")
    if f"{_scope(spec)}/".encode() not in table:  # names that begin alike are shortened, but not the first of a run
        raise WeightsError(f"checkpoint {prefix} does not fit: it holds no variable of {_scope(spec)}; check --variant")
    return [index, *shards]


def load(model: keras.Model, spec: ModelSpec, prefix: str) -> WeightsOrigin:
    """Set every weight of ``model`` from a checkpoint; layers that a user put in front of the network stay as they are.

    The digest is that of the index and the data files one behind the other:
    ``cat PREFIX.index PREFIX.data-* | sha256sum``.

    Raises:
        WeightsError: missing, damaged, or of another network (names the layer and both shapes).
    """
    files = check(prefix, spec)
    path, scope = Path(prefix), _scope(spec)
    variables: Variables = {}
    taken: set[str] = set()

    def read(layer: keras.Layer, name: str) -> list[NDArray[np.float32]]:
        names = [f"{scope}/{name}/{part}" for part in _parts(layer)]
        taken.update(names)
        return [_keras_form(layer, variables[name]) for name in names if name in variables]

    placed = placed_layers(model, slim_name)
    with _reading(prefix) as reader:
        variables |= _shapes(reader, scope)
        fitting_arrays(path, placed, read)  # before anything is read: a file may claim to hold any size
        top = tuple(f"{scope}/{part}" for part in _TOP)
        refuse_left_over(path, [n for n in variables if n not in taken and (spec.include_top or not n.startswith(top))])
        variables |= {name: _tensor(reader, name) for name in variables if name in taken}
    for layer, values in fitting_arrays(path, placed, read):
        layer.set_weights(values)
    return WeightsOrigin(kind="slim", file=path.name, sha256=sha256_of(files))


def slim_name(layer: str) -> str | None:
    """TF-slim's name for a Keras layer with weights, without the network's scope; None for one not Keras's own.

    ``expanded_conv_3/depthwise/BatchNorm`` for V2's ``block_3_depthwise_BN`` and V3's ``expanded_conv_3_depthwise_bn``.
    """
    if layer == "bn_Conv1":  # the one name that Keras turns round
        return "Conv/BatchNorm"
    plain = layer.removesuffix("_bn").removesuffix("_BN")
    norm = "" if plain == layer else "/BatchNorm"
    match = _BLOCK_LAYER.fullmatch(plain)
    if match is None:
        return _OUTSIDE[plain] + norm if plain in _OUTSIDE else None
    number, kind, second = (part or "" for part in match.groups())
    return f"expanded_conv{number}/{kind.replace('excite_conv', 'excite/Conv')}{second}{norm}"


def _scope(spec: ModelSpec) -> str:
    return "MobilenetV3" if spec.is_v3 else "MobilenetV2"


def _parts(layer: keras.Layer) -> tuple[str, ...]:
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return _BATCH_NORM
    return ("depthwise_weights" if kind == "DepthwiseConv2D" else "weights", "biases")[: len(layer.weights)]


@contextlib.contextmanager
def _reading(prefix: str) -> Iterator[Any]:
    """TensorFlow's reader of the checkpoint; its complaints become errors that name the checkpoint."""
    import tensorflow as tf

    try:
        yield tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, LookupError, ValueError, RuntimeError, OSError) as error:  # by the kind of damage
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"checkpoint {prefix} is damaged or truncated ({reason})") from error


def _shapes(reader: Any, scope: str) -> Variables:
    """The network's own variables as arrays of their shapes that take no memory."""
    shapes = {name.removesuffix(AVERAGE): shape for name, shape in reader.get_variable_to_shape_map().items()}
    own = sorted(name for name in shapes if name.startswith(f"{scope}/") and name.rpartition("/")[2] in _LEAVES)
    return {name: np.broadcast_to(np.float32(0), shapes[name]) for name in own}


def _tensor(reader: Any, name: str) -> NDArray[np.float32]:
    """A variable's moving average where there is one."""
    average = f"{name}{AVERAGE}"
    return np.asarray(reader.get_tensor(average if reader.has_tensor(average) else name), np.float32)


def _keras_form(layer: keras.Layer, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A classifier's variable as the layer has it: V2's is a matrix, and Keras knows no background class."""
    shape = layer.weights[0].shape
    if array.ndim == 4 and len(shape) == 2:
        array = array.reshape(-1, array.shape[-1])
    if layer.name in {"logits", "predictions"} and (array.shape[-1], shape[-1]) == (SLIM_CLASSES, CLASSES):
        array = array[..., 1:]
    return array


def sha256_of(files: list[Path]) -> str:
    """Of a checkpoint's files, one behind the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
