"""Whether a file's tensors fit a network, layer by layer, and what to say where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import keras
    from numpy.typing import NDArray

TOP_LAYERS = frozenset({"conv_2", "logits", "predictions"})
"""Keras's layers with weights that a network without its top lacks."""


def placed_layers(model: keras.Model, name_of: Callable[[str], str | None]) -> list[tuple[keras.Layer, str]]:
    """The layers with weights, in the model's order, each with its name in the file.

    ``name_of`` answers None for layers that a user put in front of the network: these are left out.
    """
    named = [(layer, name_of(layer.name)) for layer in model.layers if layer.weights]
    return [(layer, name) for layer, name in named if name is not None]


def fitting_arrays(
    path: Path, placed: Sequence[tuple[keras.Layer, str]], read: Callable[[keras.Layer, str], Sequence[NDArray[Any]]]
) -> list[tuple[keras.Layer, Sequence[NDArray[Any]]]]:
    """Every layer with its arrays, once all of them fit.

    Args:
        path: the file, for messages.
        placed: the layers and their names in the file.
        read: what the file holds for one of them, in the order and the axes of Keras; what it lacks is left out.

    Raises:
        WeightsError: the first layer whose arrays differ in number or shape, with both shapes, or are not finite.
    """
    found = []
    for layer, name in placed:
        arrays = read(layer, name)
        wanted = [tuple(weight.shape) for weight in layer.weights]
        shapes = [array.shape for array in arrays]
        if shapes != wanted:
            raise WeightsError(
                f"weights file {path} does not fit: layer {layer.name} has shapes {shapes_text(wanted)}, "
                f"the file's {name} has {shapes_text(shapes)}{_hint(layer.name, wanted, shapes)}"
            )
        if not all(np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() for array in arrays):
            raise WeightsError(f"weights file {path}: {name} holds numbers that are not finite in float32")
        found.append((layer, arrays))
    return found


def refuse_left_over(path: Path, names: Sequence[str]) -> None:
    """Raise where the file holds tensors that no layer took: it is another network's, although all shapes fit.

    Raises:
        WeightsError: names the first of ``names``, if there is one.
    """
    if names:
        raise WeightsError(
            f"weights file {path} does not fit: it holds {names[0]}, which this network does not have; "
            "check --variant, --minimalistic and --include-top"
        )


def shapes_text(shapes: Sequence[tuple[int, ...]]) -> str:
    """Such as ``3x3x3x16, 16``."""
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "none"


def _hint(layer: str, wanted: Sequence[tuple[int, ...]], found: Sequence[tuple[int, ...]]) -> str:
    if layer in TOP_LAYERS and not found:
        return "; a file without the top needs --no-include-top"
    if layer in TOP_LAYERS - {"conv_2"} and found[0][:-1] == wanted[0][:-1] and found[0] != wanted[0]:
        return f"; for this file add --classes {found[0][-1]}"
    return "; check --variant, --alpha and --minimalistic"
