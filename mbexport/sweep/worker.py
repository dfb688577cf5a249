"""A process that builds and checks cells, one after the other; TensorFlow is loaded by the first that needs it.

Run as ``python -m mbexport.sweep.worker``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import cached, child, hardware
from mbexport.cache import Cache
from mbexport.errors import InputError
from mbexport.runtimes import engine_versions
from mbexport.sweep.checked import validated
from mbexport.sweep.orders import Delivery, Order

if TYPE_CHECKING:
    from mbexport.artifact import Artifact


def work(order: Order) -> Delivery:
    """Raises as building, quantising and validating do."""
    if order.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order.cpus)
    told: list[str] = []
    cache = Cache(Path(order.cache), told.append, Path(order.scratch) if order.scratch else None)
    start = time.perf_counter()
    artifact, was_there = _artifact(order, cache, told)
    built = time.perf_counter()
    report, was_known = validated(cache, artifact, order.targets, order.threads)
    return Delivery(
        artifact=str(artifact.path),
        sha256=artifact.sha256,
        was_built=not was_there,
        was_validated=not was_known,
        validation=report,
        machine=hardware.detect().slug,
        versions=engine_versions(order.targets),
        notes=told,
        build_s=built - start,
        validate_s=time.perf_counter() - built,
    )


def _artifact(order: Order, cache: Cache, told: list[str]) -> tuple[Artifact, bool]:
    cell = order.cell
    made, was_there = cached.build(
        cache,
        cell.spec,
        export=cell.export,
        weights=cell.weights,
        seed=cell.seed,
        out=Path(order.out),
        labels=Path(order.labels) if order.labels else None,
        golden=Path(order.golden) if order.golden else None,
    )
    told += made.notes
    if cell.precision not in {"int8", "f16"}:
        return made.artifact, was_there
    if order.images is None:
        raise InputError(f"{cell.name} is calibrated on pictures: give their folder with --images")
    return cached.narrow(cache, made.artifact, Path(order.images), order.targets, cell.precision, Path(order.out))


if __name__ == "__main__":
    sys.exit(child.serve(Order, work))
