"""Raw durations as a few bytes each: exact nanoseconds, packed for a text file.

Little-endian 64-bit integers, their lowest bytes first, then their second ones, and so on, compressed by zlib: the high
bytes of one row's durations are alike, so a sample takes 2 to 3 bytes where plain digits take 8.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 8
_MOST_SAMPLES = 100_000_000
"""A profile may come from anywhere: what unpacks to more than this is no measurement."""


def packed(samples_ns: Sequence[int]) -> bytes:
    """The samples, each 0 to 2^64 - 1, as bytes."""
    values = array("Q", samples_ns)
    if sys.byteorder == "big":
        values.byteswap()
    data = values.tobytes()
    return zlib.compress(b"".join(data[place::_WIDTH] for place in range(_WIDTH)), 9)


def unpacked(data: bytes) -> list[int]:
    """What :func:`packed` was given.

    Raises:
        ValueError: these are not its bytes.
    """
    unpack = zlib.decompressobj()
    try:
        planes = unpack.decompress(data, _WIDTH * _MOST_SAMPLES)
    except zlib.error as error:
        raise ValueError(f"samples are damaged: {error}") from error
    count, rest = divmod(len(planes), _WIDTH)
    if rest or not unpack.eof or unpack.unused_data:
        raise ValueError("samples are damaged: not as many bytes as whole numbers take")
    mixed = bytearray(len(planes))
    for place in range(_WIDTH):
        mixed[place::_WIDTH] = planes[place * count : (place + 1) * count]
    values = array("Q", bytes(mixed))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
