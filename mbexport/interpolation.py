"""What interpolation rounds: TensorFlow resizes in float32, whatever the type of the pictures, weights and sums alike.

So Keras in float64 has to be given exact weights here, or the truth behind a Resizing would carry float32's rounding.
Its noise in float32 is that of the weights which engines work out from the file: ONNX divides by the new size over the
old, TensorFlow multiplies by the old over the new, and one of the two may be exact where the other is not.
``tests/test_interpolation.py`` tells when TensorFlow can resize in float64 itself.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_CUBIC_A = -0.5
"""The slope of Keys's cubic kernel (IEEE Trans. ASSP 29(6), 1981, eq. 15), as TensorFlow has it for pixel centres."""


@contextmanager
def interpolating_in(dtype: type[np.float32 | np.float64]) -> Iterator[None]:
    """Within, pictures of that type are resized with weights that are worked out in it, as ONNX defines them.

    Bicubic ones in float32 stay TensorFlow's own, from a table of 1024 weights: those are what the network was trained
    with, and 40 dB farther from the truth than any engine. It takes the place of the two operators that
    ``tf.image.resize`` calls, so that it serves Keras's layers and functions that a Keras 2 file calls alike.
    """
    from tensorflow.python.ops import gen_image_ops

    kernels = {"resize_bilinear": _linear} if dtype is np.float32 else _KERNELS
    originals = {name: getattr(gen_image_ops, name) for name in kernels}
    try:
        for name, original in originals.items():
            setattr(gen_image_ops, name, _resize(original, kernels[name], np.dtype(dtype)))
        yield
    finally:
        for name, original in originals.items():
            setattr(gen_image_ops, name, original)


def weights(size_in: int, size_out: int, kernel: Callable[[NDArray[Any]], NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """(size_out, size_in): what each pixel of one axis gives to each of the result; ONNX's ``half_pixel`` coordinates.

    Bilinear weights that fall outside go to the pixel on the edge; bicubic ones are left out and the others scaled to a
    sum of 1, which ONNX calls ``exclude_outside``.
    """
    half, pixels = dtype.type(0.5), np.arange(size_out).astype(dtype)
    scale = dtype.type(size_out / size_in)
    centres = (pixels + half) / scale - half
    if kernel is _linear:
        centres = centres.clip(0, size_in - 1)
    shares = kernel(np.abs(centres[:, None] - np.arange(size_in).astype(dtype)))
    found: NDArray[Any] = shares / shares.sum(axis=1, keepdims=True)
    return found


def _resize(original: Callable[..., Any], kernel: Callable[..., Any], dtype: np.dtype[Any]) -> Callable[..., Any]:
    import tensorflow as tf

    def resize(
        images: Any, size: Any, align_corners: bool = False, half_pixel_centers: bool = False, name: str | None = None
    ) -> Any:
        if images.dtype != dtype or align_corners or not half_pixel_centers:
            return original(images, size, align_corners, half_pixel_centers, name)
        (_, height, width, _), (new_height, new_width) = images.shape, np.asarray(size).tolist()
        down, across = weights(height, new_height, kernel, dtype), weights(width, new_width, kernel, dtype)
        return tf.einsum("ph,nhwc,qw->npqc", tf.constant(down), images, tf.constant(across))

    return resize


def _linear(distance: NDArray[Any]) -> NDArray[Any]:
    shares: NDArray[Any] = np.maximum(1 - distance, 0)
    return shares


def _cubic(distance: NDArray[Any]) -> NDArray[Any]:
    d, a = distance, _CUBIC_A
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    shares: NDArray[Any] = np.where(d <= 1, near, np.where(d < 2, far, 0))
    return shares


_KERNELS = {"resize_bilinear": _linear, "resize_bicubic": _cubic}
