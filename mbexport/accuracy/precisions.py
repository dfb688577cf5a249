"""The precisions narrower than float32: how each rounds a number, in NumPy for constants and as ONNX nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from mbexport import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Precision = thresholds.Precision

_TF32_DROPPED_BITS, _BF16_DROPPED_BITS = 13, 16
"""Of float32's 23 explicit mantissa bits TF32 keeps 10 and bf16 7."""
_INT8_LARGEST = 127


@dataclass(frozen=True)
class Rounding:
    """How an engine rounds that computes in one precision."""

    constant: Callable[[Floats, int], Floats]
    """A constant (values, channel axis), rounded, as float32."""
    nodes: Callable[[str, str], list[onnx.NodeProto]]
    """Nodes that round one float32 value (its name, the result's name)."""
    stores: bool
    """Whether biases and what lies between the layers are kept in it too, or the products' factors alone."""


def _nearest(values: Floats, dropped_bits: int) -> Floats:
    """Rounded to the nearest number without its last bits, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    odd = (bits >> np.uint32(dropped_bits)) & np.uint32(1)
    half = np.uint32((1 << (dropped_bits - 1)) - 1)
    rounded: Floats = ((bits + half + odd) & np.uint32(0xFFFFFFFF << dropped_bits & 0xFFFFFFFF)).view(np.float32)
    return rounded


def _half(values: Floats, _axis: int) -> Floats:
    with np.errstate(over="ignore"):  # to infinity, as an engine's would
        return values.astype(np.float16).astype(np.float32)


def _int8_per_channel(values: Floats, axis: int) -> Floats:
    """Symmetric, -127..127, with a scale for each channel."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    largest = np.abs(values).max(axis=others, keepdims=True, initial=0.0)
    scale = np.where(largest > 0, largest / _INT8_LARGEST, 1.0).astype(np.float32)
    rounded: Floats = (np.rint(values / scale) * scale).astype(np.float32)
    return rounded


def _cast_and_back(kind: int) -> Callable[[str, str], list[onnx.NodeProto]]:
    def nodes(name: str, result: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Cast", [name], [f"{result}/narrow"], to=kind),
            helper.make_node("Cast", [f"{result}/narrow"], [result], to=TensorProto.FLOAT),
        ]

    return nodes


def _split(name: str, result: str) -> list[onnx.NodeProto]:
    """The leading 11 of 24 bits: c - (c - x) with c = (2^13 + 1) x. ONNX has no TF32 to cast to.

    T. J. Dekker, A floating-point technique for extending the available precision, 1971.
    """
    factor, scaled, rest = (f"{result}/{part}" for part in ("factor", "scaled", "rest"))
    return [
        helper.make_node("Constant", [], [factor], value_float=2.0**_TF32_DROPPED_BITS + 1),
        helper.make_node("Mul", [name, factor], [scaled]),
        helper.make_node("Sub", [scaled, name], [rest]),
        helper.make_node("Sub", [scaled, rest], [result]),
    ]


def _quantized(name: str, result: str) -> list[onnx.NodeProto]:
    """Asymmetric uint8 with one scale, over the range that the tensor itself has."""
    parts = [f"{result}/{part}" for part in ("uint8", "scale", "zero")]
    return [
        helper.make_node("DynamicQuantizeLinear", [name], parts),
        helper.make_node("DequantizeLinear", parts, [result]),
    ]


ROUNDINGS: dict[Precision, Rounding] = {
    "bf16": Rounding(
        lambda values, _: _nearest(values, _BF16_DROPPED_BITS), _cast_and_back(TensorProto.BFLOAT16), stores=True
    ),
    "f16": Rounding(_half, _cast_and_back(TensorProto.FLOAT16), stores=True),
    "tf32": Rounding(lambda values, _: _nearest(values, _TF32_DROPPED_BITS), _split, stores=False),
    "int8": Rounding(_int8_per_channel, _quantized, stores=False),
}
