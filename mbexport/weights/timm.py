"""State dicts of timm's six ``tf_mobilenetv3_*`` networks, which were ported from the checkpoints that Keras has.

Same layers, same padding, same batch-norm epsilon (1e-3); names and axes differ. Rescaling stays inside the Keras
network, so 0..255 goes in.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport.catalog import PUBLISHED
from mbexport.errors import MissingPackageError, SpecError, WeightsError
from mbexport.manifest import WeightsOrigin
from mbexport.weights.shapes import fitting_arrays, placed_layers, refuse_left_over
from mbexport.weights.torch_file import flat_numbers, read_state_dict, without_module

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from mbexport.spec import ModelSpec

    StateDict = dict[str, NDArray[Any]]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_NETWORKS = {
    (entry.spec.variant, entry.spec.minimalistic, entry.spec.alpha): entry.timm.name
    for entry in PUBLISHED
    if entry.timm is not None
}
_OTHER_PADDING = re.compile(r"mobilenetv3_(large|small)_\d{3}")
"""timm's own trainings, as it names their files: the same names and shapes, but padded evenly on both sides and with
another epsilon. Their tensors would fit and the answers would be wrong."""
_STAGES = {"large": (1, 2, 3, 4, 2, 3), "small": (1, 2, 3, 2, 3)}
"""How many blocks each stage has: Keras counts blocks through, timm inside each stage (``blocks.STAGE.BLOCK``)."""
_BLOCK_LAYER = re.compile(r"expanded_conv(?:_(\d+))?_(expand|depthwise|project|squeeze_excite_conv(?:_1)?)(_bn)?")
_FIRST_BLOCK = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
"""The first block has nothing to expand."""
_OTHER_BLOCKS = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
_GATES = {"squeeze_excite_conv": "se.conv_reduce", "squeeze_excite_conv_1": "se.conv_expand"}
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
"""In Keras's order: gamma, beta, moving mean, moving variance."""
_TOP = ("conv_head.", "classifier.")


def check(path_text: str, spec: ModelSpec) -> Path:
    """The path, where it can hold timm's weights for ``spec``; cheap, before anything heavy is imported.

    Raises:
        SpecError: a network that timm's six do not include.
        WeightsError: missing, not a file, empty, of a kind that is not read, or another training of timm's.
    """
    if (spec.variant, spec.minimalistic, spec.alpha) not in _NETWORKS:
        raise SpecError(
            "timm's weights exist for --variant large and small, with --alpha 0.75 and 1.0, and --minimalistic with "
            f"--alpha 1.0 only ({', '.join(_NETWORKS.values())})"
        )
    path = Path(path_text)
    if not path_text or not path.exists():
        raise WeightsError(f"weights file {path_text!r} does not exist; give timm:FILE.safetensors or timm:FILE.pth")
    if not path.is_file():
        raise WeightsError(f"weights file {path} is not a file")
    if path.stat().st_size == 0:
        raise WeightsError(f"weights file {path} is empty")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"weights file {path} must be one of {', '.join(SUFFIXES)}, as timm and PyTorch write them")
    other = _OTHER_PADDING.match(path.name)
    if other:
        raise WeightsError(
            f"weights file {path} is by its name timm's {other[0]}, which pads otherwise than Keras; take "
            f"tf_{other[0]}, or rename the file if that is what it holds"
        )
    return path


def load(model: keras.Model, spec: ModelSpec, path_text: str) -> WeightsOrigin:
    """Set every weight of ``model`` from a state dict; layers that a user put in front of the network stay as they are.

    Raises:
        SpecError: a network that timm's six do not include.
        WeightsError: missing, damaged, holding more than tensors, or of another network (names the layer and both
            shapes).
        MissingPackageError: a ``.safetensors`` file, and the package safetensors is not installed.
    """
    path = check(path_text, spec)
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)
    taken: set[str] = set()

    def read(layer: keras.Layer, module: str) -> list[NDArray[Any]]:
        names = [f"{module}.{part}" for part in _parts(layer)]
        taken.update(names)
        return [_keras_axes(layer, tensors[name]) for name in names if name in tensors]

    arrays = fitting_arrays(path, placed_layers(model, lambda layer: timm_name(layer, spec)), read)
    refuse_left_over(path, [name for name in tensors if name not in taken and not _may_stay(name, spec)])
    for layer, values in arrays:
        layer.set_weights(values)
    return WeightsOrigin(kind="timm", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def timm_name(layer: str, spec: ModelSpec) -> str | None:
    """The module of a Keras V3 layer in timm's words: ``blocks.2.0.conv_dw`` for ``expanded_conv_3_depthwise``.

    None for a layer that is not Keras's own.
    """
    stages = _STAGES[spec.variant]
    last = f"blocks.{len(stages)}.0"
    outside = {
        "conv": "conv_stem",
        "conv_bn": "bn1",
        "conv_1": f"{last}.conv",
        "conv_1_bn": f"{last}.bn1",
        "conv_2": "conv_head",
        "logits": "classifier",
    }
    match = _BLOCK_LAYER.fullmatch(layer)
    if match is None:
        return outside.get(layer)
    number, kind, is_norm = int(match[1] or 0), match[2], match[3] is not None
    pairs = _OTHER_BLOCKS if number else _FIRST_BLOCK
    module = _GATES[kind] if kind in _GATES else pairs[kind][is_norm]
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    stage, block = places[number]
    return f"blocks.{stage}.{block}.{module}"


def _parts(layer: keras.Layer) -> tuple[str, ...]:
    if type(layer).__name__ == "BatchNormalization":
        return _BATCH_NORM
    return ("weight", "bias")[: len(layer.weights)]


def _keras_axes(layer: keras.Layer, array: NDArray[Any]) -> NDArray[Any]:
    """From PyTorch's axes to Keras's; a tensor of another rank stays as it is, and will not fit."""
    if array.ndim == 4 and type(layer).__name__ == "DepthwiseConv2D":
        return array.transpose(2, 3, 0, 1)  # (C, 1, kh, kw) -> (kh, kw, C, 1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # OIHW -> HWIO
    if array.ndim == 2:
        return array.T[None, None]  # the classifier's matrix (classes, C) -> a 1x1 kernel
    return array


def _may_stay(name: str, spec: ModelSpec) -> bool:
    """Whether a tensor may be left over: a training counter, or the top of a network that is built without."""
    return name.endswith(".num_batches_tracked") or (not spec.include_top and name.startswith(_TOP))


def _read_safetensors(path: Path) -> StateDict:
    try:
        import safetensors
    except ImportError as error:
        raise MissingPackageError(
            f"reading {path.name} needs safetensors ({error}); pip install 'mbexport[build]'"
        ) from error
    deserialize: Any = safetensors.deserialize  # its NumPy reader knows no bfloat16
    try:
        tensors = {
            name: flat_numbers(stored["data"], stored["dtype"]).reshape(stored["shape"])
            for name, stored in deserialize(path.read_bytes())
        }
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror or error}") from error
    except TypeError as error:
        raise WeightsError(f"weights file {path} holds {error}") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise WeightsError(f"weights file {path} is damaged or truncated ({error})") from error
    return without_module(tensors)
