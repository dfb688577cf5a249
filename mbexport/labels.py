"""Class labels: ImageNet's, or a user's own."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = 1
IMAGENET_CLASSES = 1000


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One class. ``id`` is a stable key, such as ImageNet's synset ``n01440764``; None where there is none."""

    name: str
    id: str | None = None


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """``labels.json``: the classes in the order of the classifier's numbers."""

    schema_version: int = SCHEMA_VERSION
    labels: list[Label]


class LabelFinder:
    """Finds classes by what people call them."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._ids: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            self._names.setdefault(_normal(label.name), []).append(index)
            if label.id is not None:
                self._ids.setdefault(_normal(label.id), []).append(index)

    def find(self, text: str) -> list[int]:
        """The classes with this id, else those with this name: none, one, or several that share it.

        Case does not matter, and ``_`` stands for a space.
        """
        key = _normal(text)
        return self._ids.get(key) or self._names.get(key, [])


def _normal(text: str) -> str:
    return " ".join(text.replace("_", " ").split()).casefold()


@functools.cache
def imagenet_labels() -> tuple[Label, ...]:
    """ImageNet's 1000 classes, with their synsets; three names stand for two classes each."""
    file = resources.files("mbexport") / "_data" / "imagenet_classes.json"
    return tuple(Label(id=synset, name=name) for synset, name in msgspec.json.decode(file.read_bytes())["classes"])
