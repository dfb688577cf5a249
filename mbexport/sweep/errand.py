"""What a cluster's worker does for a sweep. It runs in the worker; artifacts and profiles travel as bytes."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import child, hardware, serde
from mbexport.artifact import read_artifact
from mbexport.cache import cache_root
from mbexport.cached import source_digest
from mbexport.errors import InputError, MbexportError, ProcessError
from mbexport.profiles import profile_path
from mbexport.runtimes import resolve_targets
from mbexport.sweep.measured import measured
from mbexport.sweep.orders import WORKER_ENVIRONMENT, Delivery, Order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mbexport.bench.rows import BenchRow
    from mbexport.bench.settings import Settings as BenchSettings

_ATTEMPTS = 2
_lock = threading.Lock()
_servants: list[child.Servant] = []
"""At most one, kept from task to task: it has TensorFlow loaded."""


@dataclass(frozen=True)
class Built:
    """An artifact's files by name, or why there is none."""

    delivery: Delivery | None
    files: Mapping[str, bytes]
    error: str | None


@dataclass(frozen=True)
class Measuring:
    """An artifact to be measured."""

    files: Mapping[str, bytes]
    name: str
    """Its folder's."""
    targets: Sequence[str]
    bench: BenchSettings
    machine: str
    """Slug of the machine that is meant."""
    stored: bytes | None
    """The profile that there is; its rows are not measured again."""


@dataclass(frozen=True)
class Measured:
    """The rows that were asked for, and the profile that holds them; or why there is none."""

    rows: Sequence[BenchRow]
    profile: bytes
    error: str | None


def build(order: Order, code: str) -> Built:
    """Build and check a cell with this worker's own cache."""
    try:
        _refuse_other_code(code)
        targets = resolve_targets(order.targets)
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder, _lock:
            own = msgspec.structs.replace(
                order, out=folder, cache=str(cache_root()), targets=targets, threads=hardware.usable_threads().threads
            )
            delivery = _asked(own)
            files = {path.name: path.read_bytes() for path in Path(delivery.artifact).iterdir()}
        return Built(delivery, files, None)
    except MbexportError as error:
        return Built(None, {}, str(error))


def measure(asked: Measuring, code: str) -> Measured:
    """Measure an artifact on this worker's machine, which must be the one that is meant."""
    try:
        _refuse_other_code(code)
        own = hardware.detect()
        if own.slug != asked.machine:
            text = f"a worker with the resource {asked.machine} runs on {own.slug}; start it with its own name"
            raise InputError(text)
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder, _lock:
            root = Path(folder)
            (root / asked.name).mkdir()
            for file, data in asked.files.items():
                (root / asked.name / file).write_bytes(data)
            path = profile_path(root / "profiles", own, asked.name)
            if asked.stored is not None:
                serde.write_atomic(path, asked.stored)
            artifact, targets = read_artifact(root / asked.name), resolve_targets(list(asked.targets))
            rows = measured(artifact, targets, asked.bench, root / "profiles", cache_root() / "locks")
            return Measured(rows, path.read_bytes(), None)
    except MbexportError as error:
        return Measured([], b"", str(error))


def _refuse_other_code(code: str) -> None:
    if code != source_digest():
        raise InputError("a worker runs another version of mbexport; install the same one everywhere")


def _asked(order: Order) -> Delivery:
    for attempt in range(1, _ATTEMPTS + 1):
        if not _servants:
            command = child.python_module("mbexport.sweep.worker")
            _servants.append(child.Servant(command, f"the process that builds {order.cell.name}", WORKER_ENVIRONMENT))
        try:
            return _servants[0].ask(order, Delivery)
        except ProcessError:
            _servants.pop().close()
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError
