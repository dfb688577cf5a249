"""A float32 Keras network run in float64, for ground truth."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from mbexport.interpolation import interpolating_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras


@contextmanager
def computing_in_float64(model: keras.Model) -> Iterator[None]:
    """Within, every layer computes in float64, each weight being the float32 number that it holds.

    It is what Keras's mixed precision does, with another pair of types, and spares a second network: half of what one
    takes to build. Only the policies change, so anything whose type was fixed when the network was made would stay at
    float32; MobileNets hold nothing of that kind, which ``tests/test_float64.py`` holds against a network that was
    built in float64.
    """
    import keras

    class Float64(keras.DTypePolicy):  # type: ignore[misc]
        """Computes in float64 with variables of float32."""

        compute_dtype = property(lambda _: "float64")

    layers = model._flatten_layers()  # noqa: SLF001 - with those inside other layers; Keras has no public walk
    policies = {layer: layer.dtype_policy for layer in layers}
    try:
        for layer in policies:
            layer.dtype_policy = Float64("float32")
        with interpolating_in(np.float64):
            yield
    finally:
        for layer, policy in policies.items():
            layer.dtype_policy = policy
