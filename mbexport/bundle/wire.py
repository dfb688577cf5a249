"""How much of a model file is something else than weights, read off its bytes.

Parsing an ONNX file takes memory for each message in it, forty times its two bytes for an empty one, so that a hundred
megabytes may become many gigabytes. https://protobuf.dev/programming-guides/encoding/ describes the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_OTHER_BYTES = 2**23
"""The files of MobileNets have less than 0.3 MB beside their weights."""
_GRAPH, _INITIALIZER = 7, 5
"""Fields of ModelProto and of GraphProto."""
_NUMBERS = {4, 5, 7, 9, 10, 11}
"""Fields of TensorProto: float_data, int32_data, int64_data, raw_data, double_data, uint64_data."""
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


def refuse_crowded(data: bytes) -> None:
    """Raise :class:`BundleError` where a serialised ModelProto is malformed, or holds too much beside its weights."""
    other_bytes = 0
    for size_bytes in _others(memoryview(data)):
        other_bytes += size_bytes
        if other_bytes > MOST_OTHER_BYTES:
            raise BundleError(
                f"holds more than {MOST_OTHER_BYTES} bytes beside its weights, which no network here does"
            )


def _others(model: memoryview) -> Iterator[int]:
    """Bytes of each field that is no weight's numbers, with two of its own."""
    for field, content in _fields(model):
        if field != _GRAPH:
            yield len(content) + 2
            continue
        for part, inner in _fields(content):
            if part != _INITIALIZER:
                yield len(inner) + 2
                continue
            for kind, numbers in _fields(inner):
                yield 2 if kind in _NUMBERS else len(numbers) + 2


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of each field, as far as it has a length of its own."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind, length = tag & 7, 0
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _DELIMITED:
            length, at = _varint(message, at)
        elif kind in {_FIXED32, _FIXED64}:
            length = 4 if kind == _FIXED32 else 8
        else:
            raise BundleError("is not an ONNX model")
        if at + length > len(message):
            raise BundleError("is not an ONNX model")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it."""
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # the eighth bit says that another byte follows
            return value, at + place + 1
    raise BundleError("is not an ONNX model")
