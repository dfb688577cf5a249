"""Names in the ONNX file: from the layers of a Keras model, unique, and the same in every process."""

from __future__ import annotations

import re
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

from mbexport.layer_calls import every_layer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import keras

INPUT = "input"


def output_names(model: keras.Model) -> list[str]:
    """One name per output tensor, unique: its key where the model gives a dict, else after its layer, ``predictions``.

    They come in the order of ``keras.tree.flatten(model(...))``.
    """
    labels = layer_labels(model)
    structure = getattr(model, "output", None)  # a Sequential model raises AttributeError
    keys = sorted(structure) if isinstance(structure, dict) else []
    if len(keys) != len(model.outputs):
        made = [tensor._keras_history.operation for tensor in model.outputs]  # noqa: SLF001 - Keras's own record
        keys = [labels.get(id(operation)) or operation.name for operation in made]
    return unique_outputs(keys)


def unique_outputs(names: Iterable[str]) -> list[str]:
    """``names`` for the outputs of one file."""
    found: list[str] = []
    for name in map(file_name, names):
        found.append(name if name not in (INPUT, *found) else f"{name}_{len(found)}")
    return found


def layer_labels(model: keras.Model) -> dict[int, str]:
    """id(layer) -> label, unique. Names that Keras numbered by itself are renumbered from the start of the model.

    Keras counts ``activation``, ``activation_1``, ... over the whole process, which would make the names in the file
    depend on what was built before. Of layers with one name in several nested models, each is preceded by its model's.
    """
    layers = list(every_layer(model))
    names = dict(zip((id(layer) for layer, _ in layers), _renumbered([layer for layer, _ in layers]), strict=True))
    count = Counter(names.values())
    labels: dict[int, str] = {}
    for layer, outer in layers:
        label = names[id(layer)]
        if count[label] > 1 and outer is not None:
            label = f"{labels[id(outer)]}/{label}"
        labels[id(layer)] = _unique(label, labels.values())
    return labels


def file_name(name: str) -> str:
    """``name`` with nothing that TensorFlow or ONNX tools refuse in the name of an operation."""
    kept = re.sub(r"[^A-Za-z0-9_./-]", "_", name)
    return kept if re.match("[A-Za-z0-9.]", kept) else f"layer{kept}"


def _renumbered(layers: list[keras.Layer]) -> Iterator[str]:
    from keras.src.utils.naming import to_snake_case

    counts: dict[str, int] = {}
    for layer in layers:
        base = to_snake_case(type(layer).__name__)
        name = layer.name
        if re.fullmatch(rf"{re.escape(base)}(_\d+)?", name):
            counts[base] = counts.get(base, -1) + 1
            name = f"{base}_{counts[base]}" if counts[base] else base
        yield file_name(name)


def _unique(name: str, taken: Collection[str]) -> str:
    return next(found for number in count() if (found := f"{name}_{number}" if number else name) not in taken)
