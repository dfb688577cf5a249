"""Faults that no graph can express: a runtime's session that does something wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from mbexport.runtimes import Session, SessionFacts


@dataclass(frozen=True)
class SessionFault:
    """``wrap`` puts the fault round a whole session, which it takes over, at the outputs of these names."""

    name: str
    wrap: Callable[[Session, np.random.Generator, Collection[str]], Session]


class UninitialisedOutput:
    """A session whose outputs are never written: they hold what their memory held before, any bytes."""

    def __init__(self, session: Session, rng: np.random.Generator, names: Collection[str]) -> None:
        self._session = session
        self._rng = rng
        self._names = names

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        answers = self._session.run(feeds)
        return answers | {name: self._found_in_memory(answers[name]) for name in self._names if name in answers}

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        return self._session.bind(feeds)

    def bind_inner(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object] | None:
        return self._session.bind_inner(feeds)

    @property
    def callers(self) -> int:
        return self._session.callers

    def facts(self) -> SessionFacts:
        return self._session.facts()

    def _found_in_memory(self, right: NDArray[Any]) -> NDArray[Any]:
        return np.frombuffer(self._rng.bytes(right.nbytes), right.dtype).reshape(right.shape)


UNINITIALISED_OUTPUT = SessionFault("an uninitialised output", UninitialisedOutput)
