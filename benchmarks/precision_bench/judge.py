"""Files judged on the photographs that did not calibrate them, both ways round."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from mbexport.compare import centred_log
from mbexport.quantize.change import change
from precision_bench.records import Judged
from precision_bench.subject import HALVES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from mbexport.quantize.placement import Engine
    from precision_bench.subject import Subject

    Model = onnx.ModelProto | Path


def judge(
    subject: Subject, form: Engine | None, variant: str, targets: Sequence[str], make: Callable[[int], Model]
) -> list[Judged]:
    """Make a file of each half of the photographs and compare its answers to the other half with float32's.

    Args:
        subject: whose answers in float32 are the truth.
        form: of the file.
        variant: what is made.
        targets: that it is judged on.
        make: makes the file; takes the number of the half that calibrates.
    """
    started = time.monotonic()
    found: dict[str, list[NDArray[np.float32]]] = {target: [] for target in targets}
    for half in HALVES:
        model = make(half)
        for target in targets:
            found[target].append(subject.answers(model, target, subject.shown[subject.judging(half)]))
    order = np.concatenate([np.arange(len(subject.shown))[subject.judging(half)] for half in HALVES])
    exact, labels = subject.exact[order], subject.labels[order]
    return [
        Judged(
            network=subject.name,
            form=form,
            variant=variant,
            target=target,
            calibrated_on=sum(map(len, subject.calibrating(0))),
            change=change(subject.output, exact, np.concatenate(parts), labels),
            divergence=_divergence(exact, np.concatenate(parts)),
            seconds=time.monotonic() - started,
        )
        for target, parts in found.items()
    ]


def _divergence(exact: NDArray[np.float32], narrow: NDArray[np.float32]) -> float:
    """In nats; ``centred_log`` is off by the same for all classes of a picture, which normalising takes away."""
    one, other = (logs - np.log(np.exp(logs).sum(axis=1, keepdims=True)) for logs in map(centred_log, (exact, narrow)))
    return float((np.exp(one) * (one - other)).sum(axis=1).mean())
