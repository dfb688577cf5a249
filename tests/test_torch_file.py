from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mbexport.errors import WeightsError
from mbexport.weights.torch_file import read_state_dict
from tests.torch_files import (
    ORDERED_DICT,
    Slice,
    mapping,
    number,
    program,
    save,
    sequence,
    tensor,
    text,
    whole,
    write_stream,
    write_zip,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
TENSORS: dict[str, NDArray[Any]] = {"conv.weight": MATRIX, "bn.bias": np.array([-2.5, 0.0, 7.0], np.float32)}
MARKER = "ran"


def written(tensors: dict[str, NDArray[Any]] = TENSORS) -> tuple[bytes, dict[str, NDArray[Any]]]:
    cuts, storages = whole(tensors)
    return mapping({name: tensor(cut, storages[cut.key]) for name, cut in cuts.items()}), storages


def assert_read(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_both_layouts(tmp_path: Path, write: Any) -> None:
    assert_read(read_state_dict(write(tmp_path / "x.pth", *written())), TENSORS)


def test_real_file_equals_its_safetensors(real_data: Path) -> None:
    """Both were written by their own libraries from one network."""
    name = "tf_mobilenetv3_small_minimal_100"
    expected = load_file(real_data / "timm" / f"{name}.safetensors")
    found = read_state_dict(real_data / "timm" / f"{name}.pth")
    assert_read({key: found[key] for key in expected}, expected)
    assert len(found) == len(expected)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_numbers_of_any_width_become_float32(tmp_path: Path, dtype: str) -> None:
    stored = (MATRIX.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else MATRIX.astype(dtype)
    found = read_state_dict(save(tmp_path / "x.pth", {"a": stored, "steps": np.array(7, np.int64)}))
    assert_read(found, {"a": MATRIX, "steps": np.array(7, np.int64)})


def test_big_endian_file(tmp_path: Path) -> None:
    content, storages = written()
    swapped = {key: storage.byteswap() for key, storage in storages.items()}
    assert_read(read_state_dict(write_zip(tmp_path / "x.pth", content, swapped, order="big")), TENSORS)


def test_tensors_that_share_a_storage_and_are_transposed(tmp_path: Path) -> None:
    storage = MATRIX.reshape(-1)
    cuts = {"transposed": Slice("0", 0, (4, 3), (1, 4)), "second row": Slice("0", 4, (4,), (1,))}
    content = mapping({name: tensor(cut, storage) for name, cut in cuts.items()})
    found = read_state_dict(write_zip(tmp_path / "x.pth", content, {"0": storage}))
    assert_read(found, {"transposed": MATRIX.T, "second row": MATRIX[1]})


def test_parameters_and_metadata(tmp_path: Path) -> None:
    """``state_dict(keep_vars=True)`` holds parameters, and every state dict carries ``_metadata`` as an attribute."""
    storage = MATRIX.reshape(-1)
    inner = tensor(Slice("0", 0, (3, 4), (4, 1)), storage)
    parameter = b"ctorch._utils\n_rebuild_parameter\n" + sequence(inner, b"\x88", ORDERED_DICT) + b"R"
    content = ORDERED_DICT + b"(" + text("w") + parameter + b"u" + mapping({"_metadata": ORDERED_DICT}) + b"b"
    assert_read(read_state_dict(write_zip(tmp_path / "x.pth", content, {"0": storage})), {"w": MATRIX})


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "model_ema"])
def test_training_checkpoint_is_unwrapped(tmp_path: Path, key: str) -> None:
    cuts, storages = whole(TENSORS)
    inner = mapping({f"module.{name}": tensor(cut, storages[cut.key]) for name, cut in cuts.items()})
    loss = tensor(Slice("0", 0, (), ()), storages["0"])
    content = mapping({"epoch": number(3), key: inner, "loss": loss})
    assert_read(read_state_dict(write_zip(tmp_path / "x.pth", content, storages)), TENSORS)


def test_moving_averages_are_taken_first(tmp_path: Path) -> None:
    storages = {"0": np.zeros(2, np.float32), "1": np.ones(2, np.float32)}
    raw, average = (mapping({"w": tensor(Slice(key, 0, (2,), (1,)), storages[key])}) for key in storages)
    content = mapping({"state_dict": raw, "state_dict_ema": average})
    found = read_state_dict(write_zip(tmp_path / "x.pth", content, storages))
    assert_read(found, {"w": np.ones(2, np.float32)})


class Harmful:
    """Its pickle calls a function when it is loaded, as any pickle may."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARKER,)


@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize("where", ["alone", "beside tensors"])
def test_pickled_object_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    harmful = pickle.dumps(Harmful(), 2)[2:-1]
    tensors, storages = written()
    content = harmful if where == "alone" else mapping({"state_dict": tensors, "args": harmful})
    with pytest.raises(WeightsError, match=rf"holds a pickled object {os.mkdir.__module__}\.mkdir, not tensors alone"):
        read_state_dict(write(tmp_path / "x.pth", content, storages))
    assert not (tmp_path / MARKER).exists()
    pickle.loads(program(harmful))
    assert (tmp_path / MARKER).exists()  # so it was harmful indeed


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "os system",
        "torch load",
        "torch._utils _rebuild_from_type_v2",
        "torch.storage _load_from_bytes",
        "torch._utils._rebuild_tensor_v2 __globals__",
        "collections namedtuple",
        "argparse Namespace",
    ],
)
@pytest.mark.parametrize("form", ["c{}\n{}\n(tR", "(i{}\n{}\n"])
def test_only_what_makes_tensors_is_known(tmp_path: Path, name: str, form: str) -> None:
    content = form.format(*name.split()).encode()
    with pytest.raises(WeightsError, match=name.replace(" ", r"\.")):
        read_state_dict(write_zip(tmp_path / "x.pth", content, {}))


@pytest.mark.parametrize("state", [mapping({"x": number(1)}), sequence(b"N", mapping({"function": number(1)}))])
def test_pickle_cannot_alter_what_it_is_given(tmp_path: Path, state: bytes) -> None:
    for name in (b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"):
        with pytest.raises(WeightsError, match="damaged"):
            read_state_dict(write_zip(tmp_path / "x.pth", name + state + b"b", {}))
    assert_read(read_state_dict(save(tmp_path / "x.pth", TENSORS)), TENSORS)


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        (Slice("0", 1, (3, 4), (4, 1)), "offset beyond the end"),
        (Slice("0", 0, (3, 4), (5, 1)), "strides beyond the end"),
        (Slice("0", 4, (2,), (-1,)), "negative stride"),
        (Slice("0", -1, (2,), (1,)), "negative offset"),
        (Slice("0", 0, (2**40, 2**40), (0, 0)), "one number repeated 2^80 times"),
        (Slice("0", 0, (3, 4), (4,)), "strides of another rank"),
        (Slice("7", 0, (3, 4), (4, 1)), "no such storage"),
    ],
)
def test_tensor_outside_its_storage(tmp_path: Path, cut: Slice, why: str) -> None:
    content = mapping({"w": tensor(cut, MATRIX.reshape(-1))})
    with pytest.raises(WeightsError, match="is damaged or truncated"):
        read_state_dict(write_zip(tmp_path / "x.pth", content, {"0": MATRIX.reshape(-1)}))


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_storage_of_another_length(tmp_path: Path, write: Any) -> None:
    content, storages = written()
    with pytest.raises(WeightsError, match="numbers, expected 12"):
        read_state_dict(write(tmp_path / "x.pth", content, storages | {"0": MATRIX[:2].reshape(-1)}))


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    """A zip bomb without compression: many directory entries that all point at the same bytes."""
    content, storages = written({"w": np.zeros(4096, np.float32)})
    path = write_zip(tmp_path / "x.pth", content, storages)
    with zipfile.ZipFile(path, "a") as archive:
        (entry,) = (info for info in archive.infolist() if info.filename == "archive/data/0")
        archive.filelist.extend([entry] * 9)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(WeightsError, match="claim more bytes than there are"):
        read_state_dict(path)


def test_pickle_that_asks_for_memory(tmp_path: Path) -> None:
    """LONG_BINPUT to place 2^32 - 1: Python's machine would allot 64 GB for it."""
    with pytest.raises(WeightsError, match="objects in one pickle"):
        read_state_dict(write_zip(tmp_path / "x.pth", b"}r\xff\xff\xff\xff", {}))


DEEP = {
    "a million tuples inside each other": number(1) + b"\x85" * 2**20,
    "tuples of the same tuple twice": number(1) + b"2\x86" * 40,
    "put by, taken away and fetched": number(1) + b"\x85q\x010h\x01" * 2**18,
    "tuples of marks": b"(" * 2**18 + number(1) + b"t" * 2**18,
    "changes that change nothing": number(1) + b"\x85(u(eNb" * 2**18,
    "frozen sets": b"(" * 2**18 + number(1) + b"\x91" * 2**18,
    "results of calls": number(1)
    + b"q\x010"
    + b"ctorch._utils\n_rebuild_parameter\nh\x01\x85R\x85q\x010" * 2**16
    + b"h\x01",
}
"""Objects whose hash takes Python's machine more stack or more time than there is."""


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("where", ["key", "name of a tensor", "key of a storage"])
def test_pickle_that_asks_for_stack_or_time(tmp_path: Path, kind: str, where: str) -> None:
    """In a process of its own: without the check it ends by a signal, or not at all."""
    whole_tensor = tensor(Slice("0", 0, (3, 4), (4, 1)), MATRIX.reshape(-1))
    content = {
        "key": b"}" + DEEP[kind] + number(1) + b"s",
        "name of a tensor": b"}" + DEEP[kind] + whole_tensor + b"s",
        "key of a storage": mapping({"w": whole_tensor.replace(text("0"), DEEP[kind])}),
    }[where]
    path = write_zip(tmp_path / "x.pth", content, {"0": MATRIX.reshape(-1)})
    refused_in_time(path)


def refused_in_time(path: Path) -> None:
    code = f"""
import pathlib
from mbexport.errors import WeightsError
from mbexport.weights.torch_file import read_state_dict
try:
    read_state_dict(pathlib.Path({str(path)!r}))
except WeightsError as error:
    print(len(str(error)) < 1000 and "is damaged or truncated" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr[-500:]


@pytest.mark.parametrize("key", [number(5), number(5) + b"\x85", b"N"])
def test_names_and_keys_are_text(tmp_path: Path, key: bytes) -> None:
    storages = {"0": MATRIX.reshape(-1)}
    whole_tensor = tensor(Slice("0", 0, (3, 4), (4, 1)), storages["0"])
    for content in (b"}" + key + whole_tensor + b"s", mapping({"w": whole_tensor.replace(text("0"), key)})):
        with pytest.raises(WeightsError, match="is not text"):
            read_state_dict(write_zip(tmp_path / "x.pth", content, storages))


def test_long_lists_and_dictionaries_are_no_harm(tmp_path: Path) -> None:
    """As optimizers keep them beside the weights: only what is hashed is bounded."""
    content, storages = written()
    groups = b"](" + number(1) * 5000 + b"e" + mapping({str(index): number(1) for index in range(5000)}) + b"\x86"
    found = read_state_dict(write_zip(tmp_path / "x.pth", mapping({"model": content, "optimizer": groups}), storages))
    assert_read(found, TENSORS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + b"no zip at all" * 9, "is damaged or truncated"),
        (b"Dear reader, these are no weights." * 9, "is damaged or truncated"),
        (pickle.dumps({"w": [1.0, 2.0]}, 2), "does not begin as a file of torch.save"),
        (b"\x80", "is damaged or truncated"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(path)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"x")
    with pytest.raises(WeightsError, match=r"a zip without a data\.pkl"):
        read_state_dict(path)


def test_compressed_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pth", *written(), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="has compressed entries"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"}", b"N", mapping({"state_dict": number(1)}), ORDERED_DICT])
def test_no_tensors(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(write_zip(tmp_path / "x.pth", content, {}))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_cut_anywhere(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "x.pth", *written())
    data = path.read_bytes()
    for length in range(1, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_state_dict(path)


def test_any_byte_of_the_pickle_may_be_wrong(tmp_path: Path) -> None:
    """Whatever the pickle says, the answer is tensors or one kind of error. (The zip's checksums are right here.)"""
    content, storages = written()
    rng = np.random.default_rng(0)
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] = rng.integers(256)
        try:
            read_state_dict(write_zip(tmp_path / "x.pth", bytes(changed), storages))
        except WeightsError:
            refused += 1
    assert refused > len(content) / 2
