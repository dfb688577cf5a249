"""A user's own labels file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mbexport.errors import InputError
from mbexport.labels import SCHEMA_VERSION, Label, Labels

if TYPE_CHECKING:
    from pathlib import Path


def labels_from_file(path: Path) -> list[Label]:
    """One name a line, or JSON: a list of names, a list of objects with ``name`` and maybe ``id``, or a labels.json.

    Raises:
        InputError: a file that cannot be read as either, an empty line between names, a labels.json of a newer schema,
            or a class without a name or an id of its own.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"labels file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"labels file {path} is not UTF-8 text") from error
    found = _parsed(path, text)
    if not found or not all(label.name.strip() for label in found):
        raise InputError(f"labels file {path} must name each class, in the order of the classifier's numbers")
    seen: set[str] = set()
    for label in found:
        key = label.id or label.name
        if key in seen:
            raise InputError(f"labels file {path} names {key} twice; each class needs a name or an id of its own")
        seen.add(key)
    return found


def _parsed(path: Path, text: str) -> list[Label]:
    """JSON by its suffix, or where the whole text is a JSON list or object: a class's name may begin with a bracket."""
    is_json = path.suffix.lower() == ".json"
    try:
        content = msgspec.json.decode(text)
        if is_json or isinstance(content, list | dict):
            return _from_json(path, content)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _not_labels(path, error) from error
    except msgspec.DecodeError as error:
        if is_json:
            raise _not_labels(path, error) from error
    return _from_lines(path, text)


def _not_labels(path: Path, error: Exception) -> InputError:
    return InputError(f"labels file {path} must be a JSON list of names, or of objects with name and id: {error}")


def _from_json(path: Path, content: Any) -> list[Label]:
    if isinstance(content, dict):
        version = content.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:  # before its form, which may have changed
            raise InputError(
                f"labels file {path} has schema version {version}; this mbexport reads up to {SCHEMA_VERSION}. "
                "Install a newer mbexport"
            )
        return msgspec.convert(content, Labels).labels
    entries = msgspec.convert(content, list[str | Label])
    return [entry if isinstance(entry, Label) else Label(name=entry) for entry in entries]


def _from_lines(path: Path, text: str) -> list[Label]:
    names = [line.strip() for line in text.rstrip().split("\n")]  # splitlines() would split at U+2028 and others too
    if "" in names and names != [""]:  # an empty file is another mistake
        raise InputError(f"labels file {path}: line {names.index('') + 1} is empty; each line must name a class")
    return [Label(name=name) for name in names]
