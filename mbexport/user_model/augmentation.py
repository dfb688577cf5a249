"""Random augmentation that a saved graph still applies, taken out.

``model.export`` of Keras 2 and 3 calls the network without saying that it is not training. Augmentation layers train
unless told otherwise, so the SavedModel turns and flips every picture that it is given, another way each time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mbexport.errors import ConversionError
from mbexport.user_model.nodes import Nodes, data_inputs, following, needed, producer, reconnect

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tensorflow as tf

_RANDOM = re.compile("Random|Rng|TruncatedNormal|StandardNormal|Multinomial")


def cut(nodes: Nodes, tensors: Mapping[str, tf.Tensor], picture: str, outputs: list[str]) -> list[str]:
    """Let what follows each augmenting layer read what the layer reads, in place.

    Args:
        nodes: the graph.
        tensors: its tensors with their types and shapes.
        picture: the input's node.
        outputs: tensors, which are changed in place too.

    Returns:
        The layers that were taken out.

    Raises:
        ConversionError: random numbers are used in another way.
    """
    found: list[str] = []
    while True:
        live = needed(nodes, outputs)
        random = next((name for name in nodes if name in live and _RANDOM.search(nodes[name].op)), None)
        if random is None:
            return found
        found.append(_cut_round(random, nodes, live, following(nodes, picture) & live, tensors, outputs))


def _cut_round(
    random: str, nodes: Nodes, live: set[str], moving: set[str], tensors: Mapping[str, tf.Tensor], outputs: list[str]
) -> str:
    """Take out the innermost scope round ``random`` that turns one picture into another of its shape.

    ``live`` are the nodes that count, ``moving`` those of them that follow from the picture.
    """
    parts = random.split("/")
    for depth in range(len(parts) - 1, 0, -1):
        scope = "/".join(parts[:depth])
        inside = {name for name in live if name.startswith(f"{scope}/")}
        entering = {
            tensor
            for name in inside
            for tensor in data_inputs(nodes[name])
            if producer(tensor) in moving - inside and tensors[tensor].dtype.is_floating
        }
        read_outside = [tensor for name in live - inside for tensor in data_inputs(nodes[name])]
        leaving = {tensor for tensor in (*read_outside, *outputs) if producer(tensor) in inside}
        if len(entering) == len(leaving) == 1:
            (before,), (after,) = entering, leaving
            if _same_pictures(tensors[before], tensors[after]):
                _replace(nodes, outputs, after, before)
                return parts[depth - 1]
    raise ConversionError(
        f"{random} draws random numbers; save the network without the layer that does, "
        "or with training=False where it is called"
    )


def _replace(nodes: Nodes, outputs: list[str], old: str, new: str) -> None:
    """Let everything that reads tensor ``old`` read ``new``, in place."""

    def renamed(tensor: str) -> str:
        return new if tensor == old else tensor

    reconnect(nodes.values(), renamed)
    outputs[:] = map(renamed, outputs)


def _same_pictures(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Of one shape, and half or single: both become float32."""
    is_picture = one.shape.rank == other.shape.rank == 4 and other.dtype.is_floating
    return bool(is_picture and one.shape.is_compatible_with(other.shape))
