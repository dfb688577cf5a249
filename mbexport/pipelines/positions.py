"""Where something stands in a TOML file, which Python's own parser does not say."""

from __future__ import annotations

import bisect
import re
import tomllib
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
            # What some lines hold, more lines hold too.
            end = bisect.bisect_left(
                range(len(self._lines) + 1), True, key=lambda count: _holds(self._read(count)[1], keys)
            )
            if end <= len(self._lines):
                word = next((str(key) for key in reversed(keys) if isinstance(key, str)), "")
                return self._place(self._read(end - 1)[0], end, word)
            keys = keys[:-1]
        return 1, 1

    def _place(self, start: int, end: int, word: str) -> tuple[int, int]:
        for number in range(start, end):
            found = re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", self._lines[number])
            if found:
                return number + 1, found.start() + 1
        return start + 1, 1

    def _read(self, count: int) -> tuple[int, dict[str, Any]]:
        """The most lines of the first ``count`` that are whole, and what they say."""
        for end in range(count, 0, -1):
            try:
                return end, tomllib.loads("\n".join(self._lines[:end]))
            except tomllib.TOMLDecodeError:  # in the middle of a statement
                continue
        return 0, {}


def _holds(document: Any, keys: Keys) -> bool:
    for key in keys:
        if isinstance(key, int) != isinstance(document, list):
            return False
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
