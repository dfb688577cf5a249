from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from mbexport.compare import sqnr_db
from mbexport.interpolation import interpolating_in

SIZES = [((12, 20), (18, 18)), ((20, 12), (10, 11)), ((8, 8), (16, 24)), ((15, 15), (8, 8)), ((7, 9), (7, 9))]


def pictures(height: int, width: int) -> Any:
    return np.random.default_rng(0).standard_normal((2, height, width, 3))


def by_onnx(images: Any, size: tuple[int, int], mode: str) -> Any:
    """Resize as ONNX defines it, in float64, by onnx's reference evaluator."""
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": -0.5, "exclude_outside": 1}
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in "xy"]
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [*images.shape[:1], images.shape[3], *size])
    graph = helper.make_graph([node], "resize", values[:1], values[1:], [sizes])
    model = helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    (found,) = ReferenceEvaluator(model).run(None, {"x": images.transpose(0, 3, 1, 2)})
    return np.asarray(found).transpose(0, 2, 3, 1)


# The evaluator works cubic weights out with coordinates in float32.
@pytest.mark.parametrize(("method", "mode", "atol"), [("bilinear", "linear", 1e-12), ("bicubic", "cubic", 1e-5)])
@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_in_float64_as_onnx_defines_it(
    size_in: tuple[int, int], size_out: tuple[int, int], method: str, mode: str, atol: float
) -> None:
    import tensorflow as tf

    images = pictures(*size_in)
    with interpolating_in(np.float64):
        found = tf.image.resize(images, size_out, method=method)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, by_onnx(images, size_out, mode), atol=atol)


def test_bicubic_keeps_parabolas() -> None:
    """What Keys chose the slope of -1/2 for, away from the edges; to float64, which TensorFlow's table is not."""
    import tensorflow as tf

    def parabola(size: int) -> Any:
        return (((np.arange(size) + 0.5) / size) ** 2)[None, :, None, None] * np.ones((1, size, size, 1))

    with interpolating_in(np.float64):
        found = tf.image.resize(parabola(20), (36, 36), method="bicubic").numpy()
    np.testing.assert_allclose(found[:, 4:-4, 4:-4], parabola(36)[:, 4:-4, 4:-4], atol=1e-13)


def test_float32_weights_carry_float32s_rounding() -> None:
    """8/15 is no float32: ONNX divides by it, and so it shows where TensorFlow multiplies by 15/8, which is one."""
    import tensorflow as tf

    images = pictures(15, 15)
    with interpolating_in(np.float32):
        found = tf.image.resize(images.astype(np.float32), (8, 8)).numpy()
    assert found.dtype == np.float32
    truth = by_onnx(images, (8, 8), "linear")
    assert 100 < sqnr_db(truth, found) < sqnr_db(truth, tf.image.resize(images.astype(np.float32), (8, 8)).numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_meant_is_tensorflows_own(dtype: Any) -> None:
    import tensorflow as tf

    images = pictures(9, 7).astype(dtype)
    other = images.astype({"f": np.float64, "d": np.float32}[images.dtype.char])
    with interpolating_in(dtype):
        nearest, elsewhere = tf.image.resize(images, (5, 5), method="nearest"), tf.image.resize(other, (5, 5))
        aligned = tf.compat.v1.image.resize_bilinear(images, (5, 5), align_corners=True)
    np.testing.assert_array_equal(nearest, tf.image.resize(images, (5, 5), method="nearest"))
    np.testing.assert_array_equal(elsewhere, tf.image.resize(other, (5, 5)))
    np.testing.assert_array_equal(aligned, tf.compat.v1.image.resize_bilinear(images, (5, 5), align_corners=True))


def test_tensorflows_own_comes_back_after_an_error() -> None:
    import tensorflow as tf

    images = pictures(9, 7)
    before = tf.image.resize(images, (5, 5))
    with pytest.raises(KeyError), interpolating_in(np.float64):
        raise KeyError
    np.testing.assert_array_equal(tf.image.resize(images, (5, 5)), before)


def test_tensorflow_still_resizes_in_float32_alone() -> None:
    """Where this fails, ``mbexport/interpolation.py`` can go."""
    import tensorflow as tf

    assert tf.image.resize(pictures(9, 7), (5, 5)).dtype == tf.float32
