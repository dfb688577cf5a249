"""Files as ``torch.save`` writes them, put together opcode by opcode: PyTorch is not needed to test what reads them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
STORAGE_TYPES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",
    "int64": "LongStorage",
}


class Slice(NamedTuple):
    """A tensor cut from a storage; offset and strides count numbers."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def sequence(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def mapping(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def tensor(cut: Slice, storage: NDArray[Any], *behind: bytes) -> bytes:
    """``torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())``."""
    kind = f"ctorch\n{STORAGE_TYPES[storage.dtype.name]}\n".encode()
    persistent = sequence(text("storage"), kind, text(cut.key), text("cpu"), number(storage.size), *behind) + b"Q"
    shape, strides = (sequence(*map(number, values)) for values in (cut.shape, cut.strides))
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return rebuild + sequence(persistent, number(cut.offset), shape, strides, b"\x89", ORDERED_DICT) + b"R"


def whole(tensors: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Slice], dict[str, NDArray[Any]]]:
    """Each tensor in a storage of its own, as a network's parameters are."""
    cuts, storages = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        storages[str(key)] = np.ascontiguousarray(array).reshape(-1)
        strides = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
        cuts[name] = Slice(str(key), 0, array.shape, strides)
    return cuts, storages


def program(content: bytes) -> bytes:
    return b"\x80\x02" + content + b"."


def write_zip(path: Path, content: bytes, storages: Mapping[str, NDArray[Any]], **options: Any) -> Path:
    """What PyTorch has written since 1.6; ``content`` is a pickle without head and end."""
    order = options.pop("order", "little")
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", program(content))
        archive.writestr("archive/byteorder", order)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_stream(path: Path, content: bytes, storages: Mapping[str, NDArray[Any]]) -> Path:
    """What PyTorch wrote before 1.6."""
    machine = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, machine))
    data = b"".join(struct.pack("<q", storage.size) + storage.tobytes() for storage in storages.values())
    path.write_bytes(head + program(content) + pickle.dumps(list(storages), 2) + data)
    return path


def save(path: Path, tensors: Mapping[str, NDArray[Any]]) -> Path:
    """A state dict, as ``torch.save(model.state_dict(), path)`` does."""
    cuts, storages = whole(tensors)
    return write_zip(path, mapping({name: tensor(cut, storages[cut.key]) for name, cut in cuts.items()}), storages)
