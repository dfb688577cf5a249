"""How a command says what it is doing."""

from typing import Protocol


class Progress(Protocol):
    """Told what is being done, and how much of it is done as a share of 1 where that is known."""

    def __call__(self, message: str, share: float | None = None, /) -> None: ...
