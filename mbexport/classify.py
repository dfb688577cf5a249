"""Many pictures on every core: which classes each runtime holds for the most probable."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbexport.classifier import best, open_classifier
from mbexport.errors import PictureError
from mbexport.images import picture
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.classifier import Classifier
    from mbexport.manifest import InputContract, OutputContract
    from mbexport.quantities import Mode

    Progress = Callable[[int, int], None]

TOP = 5
CHUNK = 16
"""Pictures that a worker decodes before it runs them: decoding and each engine in turn cool each other's caches."""
_LOOK_S = 0.25
"""How often the workers' progress is looked at."""


@dataclass(frozen=True)
class Classified:
    """What was found out about each picture, by its position; it does not depend on how the work fell to threads."""

    top: NDArray[np.int32]
    """(pictures, targets, 5) class numbers, best first; -1 where there are fewer classes or the picture failed."""
    failed: Mapping[int, str]
    """Why a picture cannot be read, in the pictures' order."""
    precisions: Sequence[str]
    """What each target's engine says that it computed in."""
    seconds: float
    """From when all sessions were open to the last picture."""


def classify(
    artifact: Artifact,
    output: OutputContract,
    pictures: Sequence[Path],
    targets: Sequence[str],
    *,
    threads: int,
    mode: Mode = "parity",
    progress: Progress | None = None,
) -> Classified:
    """Decode each picture and run it on each target.

    Each of ``threads`` workers does both by turns, on sessions of its own with one thread each, so that no core waits
    for another; a device other than the CPU has one session, which the workers share. A worker holds at most
    :data:`CHUNK` pictures, or one batch of a network with a larger one.

    Raises:
        EngineError: a runtime cannot run the network.
        MissingError: an engine or device is not here.
    """
    work = _Work(pictures, artifact.manifest.input, len(targets), threads)
    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        shared = {
            target: stack.enter_context(open_classifier(artifact, target, output, threads, mode=mode))
            for target in targets
            if split_target(target)[1] != "cpu"
        }

        def open_all(_worker: int) -> list[Classifier]:
            return [
                shared.get(target)
                or stack.enter_context(open_classifier(artifact, target, output, 1, mode=mode, concurrent=True))
                for target in targets
            ]

        opened = list(pool.map(open_all, range(threads)))
        precisions = [classifier.precision() for classifier in opened[0]]
        start = time.perf_counter()
        running = {pool.submit(_work_off, work, classifiers) for classifiers in opened}
        try:
            while running:
                ended, running = wait(running, _LOOK_S, FIRST_EXCEPTION)
                for each in ended:
                    each.result()
                if progress is not None:
                    progress(work.done, len(pictures))
        finally:
            work.stop()
        seconds = time.perf_counter() - start
    failed = dict(sorted(work.failed.items()))
    return Classified(top=work.top, failed=failed, precisions=precisions, seconds=seconds)


class _Work:
    """Hands out pictures to the workers, and keeps what they find."""

    def __init__(self, pictures: Sequence[Path], contract: InputContract, targets: int, workers: int) -> None:
        self.top = np.full((len(pictures), targets, TOP), -1, np.int32)
        self.failed: dict[int, str] = {}
        self.done = 0
        self._pictures = pictures
        self._contract = contract
        self._workers = workers
        self._next = 0
        self._lock = threading.Lock()
        self._stopped = False

    def chunks(self) -> Iterator[range]:
        """Positions that no other worker was given, until none are left or :meth:`stop` is called."""
        while not self._stopped and (chunk := self._take()):
            yield chunk
            with self._lock:
                self.done += len(chunk)

    def _take(self) -> range:
        """The next chunk, of whole batches. Chunks shrink towards the end, so that all workers end together."""
        batch = self._contract.shape[0] or 1
        with self._lock:
            left = len(self._pictures) - self._next
            size = min(CHUNK, left // (2 * self._workers))
            chunk = range(self._next, self._next + min(left, batch * max(1, size // batch)))
            self._next = chunk.stop
        return chunk

    def stop(self) -> None:
        self._stopped = True

    def decode(self, positions: range) -> dict[int, NDArray[np.uint8]]:
        """The pictures at these positions, without those that cannot be read."""
        found = {}
        for at in positions:
            try:
                found[at] = picture(self._pictures[at], self._contract)
            except PictureError as error:
                self.failed[at] = error.reason
        return found


def _work_off(work: _Work, classifiers: Sequence[Classifier]) -> None:
    for chunk in work.chunks():
        decoded = work.decode(chunk)
        places = list(decoded)
        for at, classifier in enumerate(classifiers):
            for batch in (
                places[start : start + classifier.batch] for start in range(0, len(places), classifier.batch)
            ):
                found = best(classifier.scores(np.stack([decoded[place] for place in batch])), TOP)
                work.top[batch, at, : found.shape[1]] = found
