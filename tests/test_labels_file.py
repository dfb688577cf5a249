from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from mbexport.errors import InputError
from mbexport.labels import SCHEMA_VERSION, Label, Labels
from mbexport.labels_file import labels_from_file
from mbexport.serde import json_bytes

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, text: str) -> list[str]:
    path.write_bytes(text.encode())
    return [label.name for label in labels_from_file(path)]


@pytest.mark.parametrize("text", ["tench\ngold fish", "\ufefftench\r\n gold fish \r\n", "tench\ngold fish\n\n \n"])
def test_one_name_a_line(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "labels.txt", text) == ["tench", "gold fish"]


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1c", "\r"])
def test_only_newlines_end_a_line(tmp_path: Path, separator: str) -> None:
    """``str.splitlines`` would make two classes of the first, and shift all that come behind."""
    assert read(tmp_path / "labels.txt", f"a{separator}b\nc") == [f"a{separator}b", "c"]


@pytest.mark.parametrize(("text", "line"), [("a\n\nb", 2), ("\na\nb", 1), ("a\r\nb\r\n \t\r\nc\r\n", 3)])
def test_empty_line_between_names(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(InputError, match=f"line {line} is empty"):
        read(tmp_path / "labels.txt", text)


@pytest.mark.parametrize("text", ["", "\n\n", " "])
def test_file_without_names(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="must name each class"):
        read(tmp_path / "labels.txt", text)


@pytest.mark.parametrize("first", ["[unknown]", "{other}", "[", "1", "null", "[" * 100])
def test_name_that_begins_as_json_does(tmp_path: Path, first: str) -> None:
    assert read(tmp_path / "labels.txt", f"{first}\ncat") == [first, "cat"]


def test_a_single_number_is_a_name(tmp_path: Path) -> None:
    assert read(tmp_path / "labels.txt", "7\n") == ["7"]


@pytest.mark.parametrize("name", ["labels.json", "labels.txt", "labels"])
def test_json(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, '[\n"a",\n{"name": "b", "id": "n1"}]') == ["a", "b"]
    labels = Labels(labels=[Label(name="a", id="n0"), Label(name="a", id="n1")])
    (tmp_path / name).write_bytes(json_bytes(labels))
    assert labels_from_file(tmp_path / name) == labels.labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", "a\nb"),
        ("labels.JSON", "7"),
        ("labels.json", '["a",'),
        ("labels.txt", "[1, 2]"),
        ("labels.txt", '{"labels": [1]}'),
        ("labels.txt", "[" * 10**6),
    ],
)
def test_json_of_something_else(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{name} must be a JSON list of names")):
        read(tmp_path / name, text)


@pytest.mark.parametrize("labels", [["a"], [{"name": ["of another form"]}]])
def test_newer_schema(tmp_path: Path, labels: list[object]) -> None:
    text = msgspec.json.encode({"schema_version": SCHEMA_VERSION + 1, "labels": labels}).decode()
    with pytest.raises(InputError, match=f"schema version {SCHEMA_VERSION + 1}; .* newer mbexport"):
        read(tmp_path / "labels.json", text)


def test_name_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names a twice"):
        read(tmp_path / "labels.txt", "a\nb\na")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        labels_from_file(tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        labels_from_file(tmp_path / "labels.txt")
