"""A bundle's file: the same content gives the same bytes, and nothing else is let in."""

from __future__ import annotations

import io
import random
import stat
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest

from mbexport.bundle.archive import opened, unpack, written
from mbexport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMBERS = {"bundle.json": b"{}", "artifacts/a/model.onnx": bytes(range(256)) * 9, "README.md": b"# a\n"}


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "b.zip"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(BundleError) as caught, opened(saved(folder, data)):
        pytest.fail("it was opened")
    return str(caught.value)


def zipped(fill: Callable[[zipfile.ZipFile], object], *, name: str = "bundle.json") -> bytes:
    """A zip such as others write."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        fill(file)
        file.writestr(entry(name), b"{}")
    return buffer.getvalue()


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    return made


def test_contents_come_back(tmp_path: Path) -> None:
    with opened(saved(tmp_path, written(MEMBERS))) as file:
        assert {name: file.read(name) for name in file.namelist()} == MEMBERS
        unpack(file, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in MEMBERS} == MEMBERS


def test_order_of_making_does_not_show() -> None:
    assert written(MEMBERS) == written(dict(reversed(MEMBERS.items())))


def test_other_tools_can_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(written(MEMBERS))) as file:
        assert file.testzip() is None


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = written({"bundle.json": b"{}", "a/b": b"four"})
    path = tmp_path / "b.zip"
    for at in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])
            with pytest.raises(BundleError, match=r"b\.zip"), opened(path):
                pytest.fail(f"bit {bit} of byte {at} went unnoticed")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_flipped_byte_is_named(tmp_path: Path, name: str) -> None:
    data = written(MEMBERS)
    at = data.index(MEMBERS[name])
    assert name in refused(tmp_path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 200])
def test_cut_off(tmp_path: Path, cut: int) -> None:
    data = written(MEMBERS)
    assert "b.zip" in refused(tmp_path, data[:cut])
    assert "b.zip" in refused(tmp_path, data[: len(data) - cut - 1])


def test_added_to(tmp_path: Path) -> None:
    assert "added to" in refused(tmp_path, written(MEMBERS) + b"more")
    assert "contradicts itself" in refused(tmp_path, b"#!/bin/sh\n" + written(MEMBERS))


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "a\\b",
        "C:/x",
        "./a",
        "a/.",
        "a/",
        "",
        ".hidden",
        "a/b.",
        "nul\0",
        "ä",
        "x" * 241,
    ],
)
def test_names_that_could_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="plain relative paths"):
        written({name: b""})
    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w") as file:
        made = entry("x")
        made.filename = name
        file.writestr(made, b"")
    assert refused(tmp_path, hostile.getvalue())


@pytest.mark.parametrize("other", ["bundle.json", "Bundle.JSON"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path: Path, other: str) -> None:
    assert "twice" in refused(tmp_path, zipped(lambda file: file.writestr(entry(other), b"[]")))


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFREG | 0o4755, 0])
def test_links_and_the_like(tmp_path: Path, mode: int) -> None:
    made = entry("link")
    made.external_attr = mode << 16 | 1
    assert "link is not a plain file" in refused(tmp_path, zipped(lambda file: file.writestr(made, b"/etc/passwd")))


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    def fill(file: zipfile.ZipFile) -> None:
        with file.open(entry("bomb"), "w") as member:
            for _ in range(300):
                member.write(bytes(2**20))

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        info = entry("bomb")
        info.compress_type = zipfile.ZIP_DEFLATED
        file.writestr(info, bytes(300 * 2**20))
    path = saved(tmp_path, buffer.getvalue())
    tracemalloc.start()
    with pytest.raises(BundleError, match="compressed"), opened(path):
        pytest.fail("it was opened")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_members_that_overlap(tmp_path: Path) -> None:
    """A thousand members that are all the same bytes of the file."""
    data = bytearray(written({f"m{index:03}": bytes(1000) for index in range(100)}))
    start = data.index(b"PK\x01\x02")
    entry_bytes = 46 + len("m000")
    for index in range(100):
        data[start + index * entry_bytes + 42 : start + index * entry_bytes + 46] = bytes(4)
    assert refused(tmp_path, bytes(data))


def test_hidden_between_members(tmp_path: Path) -> None:
    """What no directory entry points to would travel unseen."""
    first = written({"a": b"x"})
    end_of_first = first.index(b"PK\x01\x02")
    hidden = bytearray(first[:end_of_first] + b"hidden" + first[end_of_first:])
    at = len(hidden) - 6
    hidden[at : at + 4] = (end_of_first + 6).to_bytes(4, "little")
    assert "damaged at byte" in refused(tmp_path, bytes(hidden))


def test_members_out_of_order(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in ("b", "a"):
            file.writestr(entry(name), b"")
    assert "not in order" in refused(tmp_path, made.getvalue())


def test_a_locator_of_another_directory(tmp_path: Path) -> None:
    """Python's reader would follow it past the limits of the end record."""
    data = written(MEMBERS)
    locator = b"PK\x06\x07" + bytes(16)
    end = bytearray(data[-22:])
    end[12:16] = (int.from_bytes(end[12:16], "little") + len(locator)).to_bytes(4, "little")
    assert "directory of another kind" in refused(tmp_path, data[:-22] + locator + bytes(end))


def test_a_file_that_is_also_a_folder() -> None:
    with pytest.raises(BundleError, match="a/b, whose folder is a file"):
        written({"a": b"", "a/b": b""})


def test_random_bytes(tmp_path: Path) -> None:
    chance = random.Random(0)
    for size in (0, 10, 100, 5000):
        assert "b.zip" in refused(tmp_path, chance.randbytes(size))


def test_a_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"), opened(tmp_path):
        pytest.fail("it was opened")
