"""LiteRT's interpreter with XNNPACK, float32, as a session like those of ``mbexport.runtimes``."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


def open_interpreter(path: Path, threads: int) -> Any:
    """XNNPACK takes a float32 model by default, with as many threads as the interpreter has."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


class LiteRtSession:
    """A loaded .tflite model with one input and one output."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = open_interpreter(path, threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def run(self, picture: Array) -> Array:
        self._interpreter.set_tensor(self._input, picture)
        self._interpreter.invoke()
        answer: Array = self._interpreter.get_tensor(self._output)
        return answer

    def calls(self, inputs: Sequence[Array]) -> Iterator[Callable[[], object]]:
        """The pictures in turn, each copied in before its call is handed out: the copy is not timed.

        The other engines read the caller's memory and copy nothing.
        """
        for picture in itertools.cycle(inputs):
            self._interpreter.set_tensor(self._input, picture)
            yield self._interpreter.invoke
