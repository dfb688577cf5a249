"""A TOML file -> :class:`PipelineDocument`, or every fault in it with its position."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mbexport.errors import InputError, PipelineFileError
from mbexport.pipelines.document import PipelineDocument
from mbexport.pipelines.positions import Keys, Positions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MOST_BYTES = 2**20
_SCHEMA: dict[str, Any] = msgspec.json.schema(PipelineDocument)


class Fault(NamedTuple):
    """What is wrong, and with what."""

    keys: Keys
    text: str


def read_text(path: Path) -> str:
    """Raises:
    InputError: the file cannot be read, or is no text.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} has more than the {_MOST_BYTES} bytes that a pipeline file may have")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; name a pipeline file, such as mbexport.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error


def parse(text: str, path: Path) -> tuple[PipelineDocument, list[Fault]]:
    """The document without what is faulty in it, and the faults.

    Raises:
        PipelineFileError: not TOML.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error))
        last = max(1, len(text.splitlines()))
        reason, line, column = found.groups() if found else (str(error).partition(" (at")[0], last, 1)
        raise PipelineFileError(f"{path}:{line}:{column}: {reason}") from error
    except RecursionError as error:
        raise PipelineFileError(f"{path}:1:1: tables and lists lie too deep in each other") from error
    faults = list[Fault]()
    while True:
        try:
            return msgspec.convert(raw, PipelineDocument), faults
        except msgspec.ValidationError as error:
            faults.append(_fault(str(error)))
            _drop(raw, faults[-1].keys)


def refuse(faults: Iterable[Fault], text: str, path: Path) -> None:
    """Raise :class:`PipelineFileError` with every fault, in the order of the file, if there is one."""
    positions = Positions(text)
    found = sorted(((positions.of(fault.keys), fault) for fault in dict.fromkeys(faults)), key=lambda pair: pair[0])
    if found:
        lines = [f"{path}:{line}:{column}: {_name(fault)}{fault.text}" for (line, column), fault in found]
        raise PipelineFileError("\n".join(lines))


def _name(fault: Fault) -> str:
    """``cells[0].alpha: ``."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault.keys]
    return f"{''.join(parts).removeprefix('.')}: " if parts else ""


def _fault(message: str) -> Fault:
    """Of msgspec's message, which ends with the path of what it is about."""
    text, _, path = message.partition(" - at `$")
    keys: Keys = tuple(
        int(number) if number else name
        for name, number in re.findall(r"\.([^.\[`]+)|\[(\d+)\]", path.split("[...]")[0])
    )
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        near = difflib.get_close_matches(unknown[1], _at(keys).get("properties", {}), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return Fault((*keys, unknown[1]), f"unknown key{hint}")
    known = ", ".join(_words(_at(keys)))
    hint = f"; known: {known}" if known and "enum" in text else ""
    return Fault(keys, f"{text[0].lower()}{text[1:]}{hint}")


def _drop(raw: Any, keys: Keys) -> None:
    """Take away the innermost key, with all the list that it holds if the fault is in one place of it."""
    last = max(place for place, key in enumerate(keys) if isinstance(key, str))
    for key in keys[:last]:
        raw = raw[key]
    del raw[keys[last]]


def _at(keys: Keys) -> dict[str, Any]:
    """What the JSON Schema says of a place; nothing where it leaves that open."""
    found = _resolved(_SCHEMA)
    for key in keys:
        each = [_resolved(part) for part in [found, *found.get("anyOf", [])]]
        inner = [
            part["items"] if isinstance(key, int) else part["properties"].get(key) for part in each if _has(part, key)
        ]
        found = _resolved(next((part for part in inner if part), {}))
    return found


def _has(part: dict[str, Any], key: str | int) -> bool:
    return ("items" if isinstance(key, int) else "properties") in part


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _SCHEMA["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    return found


def _words(part: dict[str, Any]) -> list[str]:
    every = [part, *part.get("anyOf", [])]
    return [str(word) for each in every for word in (each.get("enum") or [])]
