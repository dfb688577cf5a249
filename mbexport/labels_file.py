"""A user's own labels file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.errors import InputError
from mbexport.labels import Label, Labels

if TYPE_CHECKING:
    from pathlib import Path


def labels_from_file(path: Path) -> list[Label]:
    """One name a line, or JSON: a list of names, a list of objects with ``name`` and maybe ``id``, or a labels.json.

    Raises:
        InputError: a file that cannot be read as either, or a class without a name or an id of its own.
    """
    try:
        text = path.read_text("utf-8-sig")
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
    try:
        if text.lstrip().startswith("{"):
            return msgspec.json.decode(text, type=Labels).labels
        if text.lstrip().startswith("["):
            entries = msgspec.json.decode(text, type=list[str | Label])
            return [entry if isinstance(entry, Label) else Label(name=entry) for entry in entries]
    except msgspec.DecodeError as error:
        raise InputError(
            f"labels file {path} must be a JSON list of names, or of objects with name and id: {error}"
        ) from error
    return [Label(name=line.strip()) for line in text.splitlines() if line.strip()]
