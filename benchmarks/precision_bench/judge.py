"""Files judged on the photographs that did not calibrate them, both ways round."""

from __future__ import annotations

import itertools
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
    subjects: Sequence[Subject],
    form: Engine | None,
    variant: str,
    targets: Sequence[str],
    make: Callable[[Subject, int], Model],
) -> list[Judged]:
    """Make a file of each half of the photographs and compare its answers to the other half with float32's.

    Args:
        subjects: one, or the same network with several sets of weights, pooled; their answers in float32 are the truth.
        form: of the file.
        variant: what is made.
        targets: that it is judged on.
        make: makes the file; takes the subject and the number of the half that calibrates.
    """
    started = time.monotonic()
    found: dict[str, list[NDArray[np.float32]]] = {target: [] for target in targets}
    truths, classes = [], []
    for subject, half in itertools.product(subjects, HALVES):
        model, places = make(subject, half), subject.judging(half)
        truths.append(subject.exact[places])
        classes.append(subject.labels[places])
        for target in targets:
            found[target].append(subject.answers(model, target, subject.shown[places]))
    exact, labels = np.concatenate(truths), np.concatenate(classes)
    subject = subjects[0]
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
