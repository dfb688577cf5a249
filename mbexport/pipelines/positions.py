"""Where something stands in a TOML file, which Python's own parser does not say."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import Any

Keys = tuple[str | int, ...]
"""Names of tables and keys, and places in lists."""


class Positions:
    """Asks the parser itself: the first lines that parse and hold a value end with its statement."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def of(self, keys: Keys) -> tuple[int, int]:
        """Line and column, from 1, of what ``keys`` name, or of the innermost table around it that is there."""
        while keys:
            found = self._statement(keys)
            if found is not None:
                return found
            keys = keys[:-1]
        return 1, 1

    def _statement(self, keys: Keys) -> tuple[int, int] | None:
        start = 0
        for end, document in self._parsed:
            if _holds(document, keys):
                word = next((str(key) for key in reversed(keys) if isinstance(key, str)), "")
                return self._place(start, end, word)
            start = end
        return None

    def _place(self, start: int, end: int, word: str) -> tuple[int, int]:
        for number in range(start, end):
            found = re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", self._lines[number])
            if found:
                return number + 1, found.start() + 1
        return start + 1, 1

    @cached_property
    def _parsed(self) -> list[tuple[int, dict[str, Any]]]:
        """How many lines, and what they say, for every beginning of the file that is whole."""
        found = []
        for end in range(1, len(self._lines) + 1):
            try:
                found.append((end, tomllib.loads("\n".join(self._lines[:end]))))
            except tomllib.TOMLDecodeError:
                continue
        return found


def _holds(document: Any, keys: Keys) -> bool:
    for key in keys:
        if isinstance(key, int) if not isinstance(document, list) else not isinstance(key, int):
            return False
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
