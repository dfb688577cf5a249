"""Put something round the call of every layer of a Keras model, for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras


@contextlib.contextmanager
def wrapped_calls(
    model: keras.Model, wrap: Callable[[keras.Layer, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Within the context, each layer's ``call`` is ``wrap(layer, call)``.

    Walking the layers by hand would miss the operations that are no layers, such as the ``x + 3.0`` in V3's hard
    sigmoid; the model's own forward pass misses none.
    """
    try:
        for layer in model.layers:
            layer.call = wrap(layer, layer.call)
        yield
    finally:
        for layer in model.layers:
            vars(layer).pop("call", None)
