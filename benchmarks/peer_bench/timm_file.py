"""timm's network of the same name with Keras's weights, exported by torch as it exports today.

The V3 networks then compute what Keras's do. V2 does not: timm's ``mobilenetv2_100`` pads symmetrically, so its file is
checked against torch's own answer. timm takes pictures as -1..1, channels first, and ends in logits: its files do
neither the Transpose, nor V3's Rescaling, nor the softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from peer_bench.answers import centred
from peer_bench.keras_files import FEEDS, MODEL, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from peer_bench.cells import Cell

    Array = NDArray[np.float32]

KERAS_BN_EPSILON = 1e-3
"""timm's default is 1e-5 for V2; the statistics are Keras's, so the epsilon must be too."""
_DETECTION_OPS = ("nms", "qnms")
_declared: list[object] = []


def timm_onnx(cell: Cell, keras: Path, folder: Path) -> Path:
    """Write ``model.onnx`` and its feeds into ``folder``; ``keras`` holds the weights, the pictures and the answers."""
    timm = import_timm()
    import torch

    network = timm.create_model(cell.timm_name, bn_eps=KERAS_BN_EPSILON).eval()
    with np.load(keras / WEIGHTS) as stored:
        arrays = [stored[name] for name in sorted(stored.files)]
    state = network.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    state.update({name: torch.from_numpy(array) for name, array in torch_state(arrays, shapes).items()})
    network.load_state_dict(state)
    with np.load(keras / FEEDS) as stored:
        inputs, logits = torch_input(stored["input"], rescaled=not cell.spec.is_v3), stored["logits"]
    if not cell.spec.is_v3:
        with torch.no_grad():
            logits = centred(network(torch.from_numpy(inputs)).numpy())
    np.savez(folder / FEEDS, input=inputs, logits=logits)
    path = folder / MODEL
    torch.onnx.export(network, (torch.from_numpy(inputs[:1]),), str(path), external_data=False, verbose=False)
    return path


def import_timm() -> Any:
    """timm, which imports torchvision, which may have been built for another torch than is here.

    The package index's torchvision for Linux is built for CUDA. Beside a torch for CPUs its compiled operators do not
    load, and then its import stops at the shapes of two detection operators that are unknown. No classification
    network uses them, so it is enough to declare them.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in _DETECTION_OPS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)  # a library that is collected takes its operators with it
    import timm

    return timm


def torch_state(arrays: Sequence[Array], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Keras's weights, in the order of its layers, as torch's tensors of ``shapes``, in the order of torch's.

    Raises:
        ValueError: another number of tensors, or one that does not fit.
    """
    return {name: torch_tensor(array, shape) for array, (name, shape) in zip(arrays, shapes.items(), strict=True)}


def torch_tensor(array: Array, shape: tuple[int, ...]) -> Array:
    """HWIO to OIHW; depthwise (h, w, C, 1) to (C, 1, h, w); a classifier's kernel to (classes, features).

    Raises:
        ValueError: the result does not have ``shape``.
    """
    if array.ndim == 4 and array.shape[3] == 1 and shape[1] == 1:
        moved = array.transpose(2, 3, 0, 1)
    elif len(shape) == 4:
        moved = array.transpose(3, 2, 0, 1)
    elif len(shape) == 2:
        moved = array.reshape(-1, array.shape[-1]).T
    else:
        moved = array
    if moved.shape != shape:
        raise ValueError(f"expected a tensor that becomes {shape}, got {array.shape}")
    return np.ascontiguousarray(moved)


def torch_input(inputs: Array, *, rescaled: bool) -> Array:
    """Pictures as timm takes them: -1..1 (which V2's are already, ``rescaled``), channels first."""
    shown = inputs if rescaled else inputs / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(shown.transpose(0, 3, 1, 2))
