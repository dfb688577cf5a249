from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mbexport import serde
from mbexport.errors import DocumentError, NewerSchemaError, OutputError


class Document(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int = 2
    name: str


def upgrade(document: dict[str, Any]) -> dict[str, Any]:
    return {"name": document["title"], "schema_version": 2}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_round_trip_and_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    serde.write_atomic(path, serde.json_bytes(Document(name="x")))
    assert serde.read_document(path, Document, 2) == Document(name="x")
    old = write(tmp_path / "old.json", '{"schema_version": 1, "title": "y"}')
    assert serde.read_document(old, Document, 2, {1: upgrade}) == Document(name="y")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", DocumentError, "not valid JSON"),
        ("[]", DocumentError, "no schema_version"),
        ('{"schema_version": true}', DocumentError, "no schema_version"),
        ('{"schema_version": 0}', DocumentError, "no schema_version"),
        ('{"schema_version": 3}', NewerSchemaError, "Install a newer mbexport"),
        ('{"schema_version": 2}', DocumentError, "does not fit its schema"),
    ],
)
def test_bad_documents(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        serde.read_document(write(tmp_path / "d.json", text), Document, 2)


def test_not_finite_numbers_become_null() -> None:
    assert b"null" in serde.json_bytes({"x": float("nan")})


def fail_with(code: int) -> Any:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    serde.write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OutputError, match="No space left on device"):
        serde.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    serde.write_atomic(tmp_path / "f", b"x")
    with serde.atomic_folder(tmp_path / "d") as fresh:
        (fresh / "f").write_bytes(b"x")
    plain = write(tmp_path / "plain", "x")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    (tmp_path / "e").mkdir()
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == stat.S_IMODE((tmp_path / "e").stat().st_mode)


def make(target: Path, content: str, error: Exception | None = None) -> None:
    with serde.atomic_folder(target) as fresh:
        (fresh / "f").write_text(content)
        if error is not None:
            raise error


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "art"
    make(target, "old")
    make(target, "new")
    assert (target / "f").read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path: Path) -> None:
    for name, age_s in ((".out.new-old", 100_000), (".out.new-young", 10), (".other.new-old", 100_000)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    with serde.atomic_folder(tmp_path / "out") as fresh:
        (fresh / "a").write_text("1")
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.new-young", ".other.new-old"}


def test_folder_of_folders_is_written_whole(tmp_path: Path) -> None:
    with serde.atomic_folder(tmp_path / "out") as fresh:
        (fresh / "deep" / "er").mkdir(parents=True)
        (fresh / "deep" / "er" / "a").write_text("1")
    assert (tmp_path / "out" / "deep" / "er" / "a").read_text() == "1"


def test_error_inside_leaves_the_old_folder(tmp_path: Path) -> None:
    make(tmp_path / "art", "old")
    with pytest.raises(ValueError, match="half-way"):
        make(tmp_path / "art", "half", error=ValueError("half-way"))
    assert (tmp_path / "art" / "f").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "art"]


@pytest.mark.parametrize("strike", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupt_round_each_rename_leaves_one_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: int, when: str
) -> None:
    make(tmp_path / "art", "old")
    honest, count = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == strike and when == "before":
            raise KeyboardInterrupt
        result = honest(self, target)
        if count == strike and when == "after":
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "art", "new")
    assert (tmp_path / "art" / "f").read_text() == ("new" if (strike, when) == (2, "after") else "old")
    assert list(tmp_path.iterdir()) == [tmp_path / "art"]


def test_unwritable_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "file", "x")
    with pytest.raises(OutputError, match="file"):
        serde.refuse_unwritable(tmp_path / "file" / "below")
    serde.refuse_unwritable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_failure_removes_the_folders_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OutputError):
        serde.write_atomic(tmp_path / "new" / "deep" / "f", b"x")
    with pytest.raises(OutputError):
        make(tmp_path / "new" / "deep" / "art", "x")
    assert list(tmp_path.iterdir()) == []
