"""Every layer of a Keras model, those inside other layers too, and something put round their calls for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras


def every_layer(model: keras.Model) -> Iterator[tuple[keras.Layer, keras.Layer | None]]:
    """Each layer once, an outer one before what it holds, with the one that it stands in (None: the model itself)."""
    seen: set[int] = set()
    stack: list[tuple[keras.Layer, keras.Layer | None]] = [(layer, None) for layer in reversed(_within(model))]
    while stack:
        layer, outer = stack.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer, outer
            stack.extend((inner, layer) for inner in reversed(_within(layer)))


@contextlib.contextmanager
def wrapped_calls(
    model: keras.Model, wrap: Callable[[keras.Layer, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Within the context, each layer's ``call`` is ``wrap(layer, call)``.

    Walking the layers by hand would miss the operations that are no layers, such as the ``x + 3.0`` in V3's hard
    sigmoid; the model's own forward pass misses none.
    """
    layers = [layer for layer, _ in every_layer(model)]
    try:
        for layer in layers:
            layer.call = wrap(layer, layer.call)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _within(layer: keras.Layer) -> list[keras.Layer]:
    """A model's layers in their own order; Keras has no public list of what another layer holds."""
    import keras

    return list(layer.layers if isinstance(layer, keras.Model) else layer._layers)  # noqa: SLF001


def called_on(model: keras.Model, pictures: Any) -> Any:
    """The model's outputs for its one input, in inference mode.

    A model that was made with ``inputs=[x]`` or ``inputs={"image": x}`` wants its input in the same structure.
    """
    import keras

    structure = getattr(model, "_inputs_struct", None)  # of functional models; Sequential ones have none
    inputs = pictures if structure is None else keras.tree.pack_sequence_as(structure, [pictures])
    return model(inputs, training=False)
