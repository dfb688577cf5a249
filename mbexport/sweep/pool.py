"""Workers that build cells side by side, each a process with TensorFlow of its own."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from mbexport import child
from mbexport.cache import Cache
from mbexport.errors import MbexportError, ProcessError
from mbexport.sweep.orders import WORKER_ENVIRONMENT, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.sweep.orders import Order

_MOST_BYTES = 2_300_000_000
"""TensorFlow keeps what its largest network took. A worker that holds more is replaced before its next cell; with
TensorFlow and both engines loaded 2.0 are resident after the smallest."""
_ATTEMPTS = 2
"""Of a cell whose worker dies: once it may have been the system that was short of memory."""


@dataclass(frozen=True)
class Outcome:
    """What became of an order."""

    order: Order
    delivery: Delivery | None
    error: str | None


def outcomes(orders: Sequence[Order], workers: int) -> Iterator[Outcome]:
    """Each order's outcome, as they come. Workers end with this generator, however it ends."""
    waiting: queue.SimpleQueue[Order] = queue.SimpleQueue()
    for order in orders:
        waiting.put(order)
    found: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    if not orders:
        return
    cache = Cache(Path(orders[0].cache))
    cache.forget_abandoned()
    with cache.scratch() as scratch, _running(waiting, found, min(workers, len(orders)), scratch):
        for _ in orders:
            outcome = found.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome


@contextmanager
def _running(
    waiting: queue.SimpleQueue[Order], found: queue.SimpleQueue[Outcome | BaseException], count: int, scratch: Path
) -> Iterator[None]:
    crew = [_Worker(waiting, found, cpus, scratch) for cpus in _shares(count)]
    try:
        for worker in crew:
            worker.start()
        yield
    finally:
        for worker in crew:
            worker.stop()


def _shares(count: int) -> list[list[int]]:
    """The CPUs that this process may use, dealt out to so many workers; several share one where there are too few."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cpus = sorted(os.sched_getaffinity(0))
    return [cpus[place::count] or [cpus[place % len(cpus)]] for place in range(count)]


class _Worker:
    """A thread that hands orders to its process, and gets another process where that dies or grows too large."""

    def __init__(
        self,
        waiting: queue.SimpleQueue[Order],
        found: queue.SimpleQueue[Outcome | BaseException],
        cpus: list[int],
        scratch: Path,
    ) -> None:
        """``scratch`` is where its process leaves temporary files, which it cannot remove when it is killed."""
        self._waiting, self._found, self._cpus, self._scratch = waiting, found, cpus, scratch
        self._servant: child.Servant | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the process at once, in the middle of whatever it does."""
        with self._lock:
            self._stopped = True
            self._dismiss()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            try:
                order = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._found.put(
                    self._outcome(msgspec.structs.replace(order, cpus=self._cpus, scratch=str(self._scratch)))
                )
            except BaseException as error:  # noqa: BLE001 - raised again where the outcomes are waited for
                self._found.put(error)
                return

    def _outcome(self, order: Order) -> Outcome:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return Outcome(order, self._ready(order).ask(order, Delivery), None)
            except ProcessError as error:
                with self._lock:
                    self._dismiss()
                if self._stopped or attempt == _ATTEMPTS:
                    return Outcome(order, None, str(error))
            except MbexportError as error:
                return Outcome(order, None, str(error))
        raise AssertionError

    def _ready(self, order: Order) -> child.Servant:
        with self._lock:
            if self._stopped:
                raise ProcessError("the sweep was stopped")
            if self._servant is not None and _resident_bytes(self._servant.pid) > _MOST_BYTES:
                self._dismiss()
            if self._servant is None:
                command = child.python_module("mbexport.sweep.worker")
                own = {"TMPDIR": str(self._scratch), "OMP_NUM_THREADS": str(order.threads), **WORKER_ENVIRONMENT}
                self._servant = child.Servant(command, f"the process that builds {order.cell.name}", own)
            return self._servant

    def _dismiss(self) -> None:
        servant, self._servant = self._servant, None
        if servant is not None:
            servant.close()


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
