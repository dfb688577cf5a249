"""PyTorch's weights files without PyTorch, and without running anything that they hold.

Both layouts of ``torch.save`` are read: a zip of ``data.pkl`` and one entry per storage (since 1.6), and one stream of
pickles with the storages behind them, as timm's first checkpoints are. The pickles are
:mod:`mbexport.weights.torch_pickle`'s.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import WeightsError
from mbexport.weights.torch_pickle import Storage, Tensor, unpickle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training scripts keep a state dict inside a checkpoint; moving averages are taken first, as timm does."""
_ZIP_MAGIC = b"PK\x03\x04"
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_NUMPY = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip
"""Element types as safetensors names them. NumPy has no bfloat16: its bits are read."""
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, ValueError, TypeError, LookupError,
    AttributeError, OverflowError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What the pickle machine and zipfile raise on bytes that nobody wrote on purpose."""


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by name, in the file's order; floating-point ones of any width as float32.

    A checkpoint that keeps its state dict under one of :data:`WRAPPERS` is unwrapped, and the prefix ``module.`` that
    parallel training leaves before every name is dropped. The arrays are views, perhaps read-only.

    Raises:
        WeightsError: unreadable, damaged, compressed, or holding anything that is not a tensor.
    """
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        content, storages = _read_zip(path) if is_zip else _read_stream(path)
        tensors = _state_dict(content)
        if not tensors:
            raise WeightsError(
                f"weights file {path} holds no state dict; write one with torch.save(model.state_dict(), FILE)"
            )
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise WeightsError(f"weights file {path} is damaged or truncated ({error})") from error


def flat_numbers(data: bytes | bytearray, dtype: str, byte_order: str = "<") -> NDArray[Any]:
    """``data`` as a flat array; floating-point numbers of any width as float32.

    Args:
        data: the numbers' bytes.
        dtype: as safetensors names it, such as ``BF16``.
        byte_order: ``<`` or ``>``.

    Raises:
        TypeError: a type that no MobileNet has.
        ValueError: half a number at the end.
    """
    if dtype not in _NUMPY:
        raise TypeError(f"numbers of type {dtype}, expected one of {', '.join(_NUMPY)}")
    array = np.frombuffer(data, byte_order + _NUMPY[dtype])
    if dtype == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # who uses the numbers looks whether they are finite
            return array.astype(np.float32)
    return array


def _read_zip(path: Path) -> tuple[Any, dict[Storage, NDArray[Any]]]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickles = [entry.filename for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise WeightsError(f"weights file {path} is a zip without a data.pkl, so torch.save did not write it")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise WeightsError(
                f"weights file {path} has compressed entries, as TorchScript's files have; write the tensors with "
                "torch.save(model.state_dict(), FILE)"
            )
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries claim more bytes than there are")
        root = pickles[0].partition("/")[0]
        content, storages = unpickle(path, io.BytesIO(archive.read(pickles[0])))
        is_big = f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") == b"big"
        return content, {
            storage: _storage_numbers(storage, archive.read(f"{root}/data/{storage.key}"), ">" if is_big else "<")
            for storage in storages.values()
        }


def _read_stream(path: Path) -> tuple[Any, dict[Storage, NDArray[Any]]]:
    """Magic number, protocol, machine, content, the storages' keys, then each storage behind its 8-byte count."""
    stream = io.BytesIO(path.read_bytes())
    magic, _ = unpickle(path, stream)
    if magic != _STREAM_MAGIC:
        raise ValueError("it does not begin as a file of torch.save")
    for _ in ("protocol", "machine"):
        unpickle(path, stream)
    content, storages = unpickle(path, stream)
    keys, _ = unpickle(path, stream)
    numbers = {}
    for key in keys:
        if not isinstance(key, str):
            raise TypeError("a storage whose key is not text")
        storage = storages[key]
        (length,) = struct.unpack("<q", stream.read(8))
        data = stream.read(max(0, length) * np.dtype(_NUMPY[storage.dtype]).itemsize)
        numbers[storage] = _storage_numbers(storage, data, "<")
    return content, numbers


def _storage_numbers(storage: Storage, data: bytes, byte_order: str) -> NDArray[Any]:
    numbers = flat_numbers(data, storage.dtype, byte_order)
    if numbers.size != storage.length:
        raise ValueError(f"storage {storage.key} has {numbers.size} numbers, expected {storage.length}")
    return numbers


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors by name: of the first wrapper that holds some, else of the content itself."""
    wrapped = [content.get(key) for key in WRAPPERS] if isinstance(content, dict) else []
    for candidate in (*wrapped, content):
        if isinstance(candidate, dict):
            tensors = {name: value for name, value in candidate.items() if isinstance(value, Tensor)}
            if not all(isinstance(name, str) for name in tensors):
                raise ValueError("a tensor whose name is not text")
            if tensors:
                return without_module(tensors)
    return {}


def without_module(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """``tensors`` without the prefix that parallel training puts before every name."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _array(tensor: Tensor, storages: Mapping[Storage, NDArray[Any]]) -> NDArray[Any]:
    """Cut a tensor from its storage, inside its bounds."""
    storage, offset, shape, strides = tensor
    numbers = storages[storage]
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    if math.prod(shape) == 0:
        return np.zeros(shape, numbers.dtype)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > numbers.size or last >= numbers.size:
        raise ValueError(f"a tensor of shape {shape} reaches beyond its {numbers.size} numbers")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
