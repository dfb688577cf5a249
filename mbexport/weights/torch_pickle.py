"""The pickles inside PyTorch's files, without PyTorch, and without running anything that they hold.

A pickle is a program for a machine that may call whatever it can name. Here the machine can name an ordered dictionary,
two functions that put tensors together, and the types of storages; each is answered by an inert stand-in, and every
other name is refused. Before a program runs, its opcodes are read: Python hashes a tuple by walking all of it, without
a limit, so a tuple nested a million deep ends the process, and one that holds itself twice, thirty levels of it, never
ends.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mbexport.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_MAX_MEMO = 2**20
"""Far more objects than a state dict has. The machine allots its memory up to the highest number that it is told."""
_MAX_PARTS = 1024
"""How many parts a tuple may have, those of its parts included; the tuples that describe a tensor have about 30."""
_MAX_NUMBER = 2**63
"""PyTorch's sizes are 64-bit integers."""
_MARK = 0
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_CHANGES = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""What changes an object and leaves it on the stack."""
_UNHASHABLE = frozenset({"LIST", "DICT"})
"""What makes an object that hashing stops at, so that its parts do not count."""


class Storage(NamedTuple):
    """A run of numbers that tensors are cut from."""

    dtype: str
    key: str
    length: int


class Tensor(NamedTuple):
    """A tensor before its numbers are read; offset and strides count numbers. A tuple, so no pickle can alter it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Call(NamedTuple):
    """Stands in for a function that a pickle calls."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class _Kind(NamedTuple):
    """Stands in for a storage's type."""

    dtype: str


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not (isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise TypeError("a tensor of an unknown form")
    if not all(isinstance(number, int) and 0 <= number < _MAX_NUMBER for number in (offset, *shape, *strides)):
        raise ValueError("a tensor whose offset, shape or strides are no sizes")
    return Tensor(storage, offset, shape, strides)


_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(lambda tensor, *_: tensor),
} | {("torch", name): _Kind(dtype) for name, dtype in _STORAGES.items()}


class _Unpickler(pickle.Unpickler):
    """A pickle machine that knows :data:`_GLOBALS` alone, and notes the storages that it was told of."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.path = path
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise WeightsError(
                f"weights file {self.path} holds a pickled object {module}.{name}, not tensors alone, so it is not "
                "opened; write the tensors with torch.save(model.state_dict(), FILE)"
            )
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        tag, kind, key, _, length, *view = pid
        if tag != "storage" or not isinstance(kind, _Kind) or any(part is not None for part in view):
            raise ValueError("a storage of an unknown form; write the file again with a newer PyTorch")
        if not isinstance(key, str) or not isinstance(length, int):
            raise TypeError("a storage whose key is not text, or whose length is not a number")
        return self.storages.setdefault(key, Storage(kind.dtype, key, length))


def unpickle(path: Path, stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """The next pickle of the stream, and the storages that it speaks of by their keys.

    Raises:
        WeightsError: it names anything that tensors do not need; ``path`` is the file that the message blames.
        Exception: of any kind that the pickle machine raises, where the program is broken; ValueError where it would
            ask for too much memory or time.
    """
    start = stream.tell()
    _check_program(stream)
    stream.seek(start)
    unpickler = _Unpickler(path, stream)
    return unpickler.load(), unpickler.storages


def _check_program(stream: BinaryIO) -> None:
    """Go through a pickle as its machine would, with the number of each object's parts in place of the object."""
    stack: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "MARK":
            stack.append(_MARK)
        elif name in _PUTS or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else int(argument or 0)
            if place > _MAX_MEMO:
                raise ValueError(f"more than {_MAX_MEMO} objects in one pickle")
            memo[place] = stack[-1]
        elif name in _GETS:
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _take(stack, opcode)
            stack += [_parts(name, taken)] * len(opcode.stack_after)


def _take(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """What the opcode takes from the stack, in the stack's order."""
    kinds, taken = opcode.stack_before, []
    if pickletools.markobject in kinds:
        kinds = kinds[: kinds.index(pickletools.markobject)]
        while (top := stack.pop()) != _MARK:
            taken.append(top)
    taken += [stack.pop() for _ in kinds]
    return taken[::-1]


def _parts(name: str, taken: list[int]) -> int:
    """How many parts the object has that an opcode makes of ``taken``."""
    if name in _CHANGES:
        return taken[0]
    parts = 1 if name in _UNHASHABLE else 1 + sum(taken)
    if parts > _MAX_PARTS:
        raise ValueError(f"an object of more than {_MAX_PARTS} parts that is no list or dictionary")
    return parts
