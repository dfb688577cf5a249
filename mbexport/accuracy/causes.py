"""Likely causes of one node's wrong output, in words: the usual mistakes, each tried on the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.accuracy.trace import sampled
from mbexport.compare import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    from mbexport.accuracy.trace import Sample

    Array = NDArray[Any]
    Arrays = Mapping[str, Array]

EXPLAINED_DB, GAIN_DB = 60.0, 20.0
"""How near to the truth a mended output must come, and how much nearer than the wrong one. Truth and mending are
float32: right guesses leave over 100 dB."""
_CHANGED = 1e-5
"""A factor that differs from 1 by less is float32's rounding."""
_DROPPED = (0.02, 0.98)
"""Shares of zeroes between which dropout is worth a thought."""
_HALF_LARGEST = 65504.0
_MOST_NAMED = 3
_MOST_MATCHED = 4096
"""Of so many channels each is compared with all others; classifiers have 1000, the widest layers 1792."""


@dataclass(frozen=True)
class Culprit:
    """The first node whose output is wrong."""

    node: onnx.NodeProto
    model: onnx.ModelProto
    known: Arrays
    """Its inputs, constants included, and its output, whole, as the engine holds them; some may be missing."""
    truth: Sample
    is_rounded: bool = False
    """Whether the engine computes in less than float32, so that its numbers are coarse, and none but its own."""

    @property
    def output(self) -> Array:
        return self.known[self.node.output[0]]

    @cached_property
    def answer(self) -> NDArray[np.float64]:
        """The output where the truth was sampled: (pictures, channels, places)."""
        return sampled(self.output).astype(np.float64)

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        return self.truth.values.astype(np.float64)

    @cached_property
    def _needed_db(self) -> float:
        return max(EXPLAINED_DB, sqnr_db(self.expected, self.answer) + GAIN_DB)

    def explains(self, candidate: Array) -> bool:
        """Whether an output (whole, or sampled already) is the truth."""
        found = candidate if candidate.shape == self.expected.shape else sampled(candidate)
        return found.shape == self.expected.shape and sqnr_db(self.expected, found) >= self._needed_db

    def is_answer(self, candidate: Array) -> bool:
        """Whether an output is what the engine gave."""
        return candidate.shape == self.output.shape and sqnr_db(self.output, candidate) >= EXPLAINED_DB


def causes(culprit: Culprit) -> list[str]:
    """The likeliest in words, where one is recognised, and whether the file or the engine is to blame."""
    from mbexport.accuracy.mending import by_mending, whose_fault

    if culprit.output.shape != culprit.truth.shape:
        return [f"shape: expected {list(culprit.truth.shape)}, got {list(culprit.output.shape)}"]
    if not np.isfinite(culprit.output).all():
        return [_not_finite(culprit), *whose_fault(culprit)]
    tries: tuple[Callable[[Culprit], Iterator[str]], ...] = (
        _moved,
        by_mending,
        _scaled,
        _scaled_by_channel,
        _scaled_by_picture,
        _dropped,
        _coarse,
    )
    found = next((cause for attempt in tries for cause in attempt(culprit)), None)
    return [*([found] if found else []), *whose_fault(culprit)]


def _not_finite(culprit: Culprit) -> str:
    for place, name in enumerate(culprit.node.input):
        array = culprit.known.get(name)
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = array.size - np.count_nonzero(np.isfinite(array))
            return f"not a number: {bad} of {array.size} numbers of input {place} ({name}) are not finite"
    if np.abs(culprit.expected).max(initial=0.0) > _HALF_LARGEST:
        return f"overflow: it should hold {np.abs(culprit.expected).max():.3g}, and float16 ends at {_HALF_LARGEST:.0f}"
    bad = culprit.output.size - np.count_nonzero(np.isfinite(culprit.output))
    return f"overflow or uninitialised memory: {bad} of {culprit.output.size} numbers are not finite, all inputs are"


def _moved(culprit: Culprit) -> Iterator[str]:
    """Right numbers in the wrong place: pictures mixed up, or channels (classes) swapped or shifted."""
    pictures = _matches(culprit.expected, culprit.answer)
    if pictures is not None and (pictures != np.arange(len(pictures))).any():
        yield "batch: the pictures of a batch are mixed up"
        return
    channels = _matches(culprit.expected.swapaxes(0, 1), culprit.answer.swapaxes(0, 1))
    if channels is None:
        return
    moved = np.flatnonzero(channels != np.arange(len(channels)))
    steps = np.unique((channels - np.arange(len(channels))) % len(channels))
    if len(steps) == 1 and steps[0]:
        yield f"order: all {len(channels)} channels are shifted by {min(steps[0], len(channels) - steps[0])}"
    elif len(moved):
        named = ", ".join(f"{channel} holds {np.flatnonzero(channels == channel)}" for channel in moved[:_MOST_NAMED])
        yield f"channel order: {len(moved)} of {len(channels)} channels are swapped ({named})"


def _matches(expected: NDArray[np.float64], answer: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """For each row of ``expected`` the row of ``answer`` that equals it, its own first; None where one has none."""
    one, other = (array.reshape(len(array), -1) for array in (expected, answer))
    if len(one) > _MOST_MATCHED:
        return None
    allowed = 10 ** (-EXPLAINED_DB / 20) * max(float(np.abs(one).max(initial=0.0)), 1e-30)
    found = np.empty(len(one), np.int64)
    for row, values in enumerate(one):
        distances = np.abs(other - values).max(axis=1, initial=0.0)
        found[row] = row if distances[row] <= distances.min() else distances.argmin()
        if distances[found[row]] > allowed:
            return None
    return found


def _scaled(culprit: Culprit) -> Iterator[str]:
    """One factor and one offset put all of it right."""
    factor, offset = _line(culprit.answer.ravel(), culprit.expected.ravel())
    if not culprit.explains(culprit.answer * factor + offset):
        return
    spread = float(np.std(culprit.expected)) or 1.0
    parts = [f"{1 / factor:.7g} times what it should be"] if abs(factor - 1) > _CHANGED and factor else []
    parts += [f"off by {-offset / (factor or 1):.3g}"] if abs(offset) > 1e-3 * spread else []
    if parts:
        yield f"scale: the output is {' and '.join(parts)}, as where a rescaling is missing, doubled or changed"


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Factor and offset of the least-squares line y = factor x + offset."""
    spread = float(np.var(x))
    factor = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
    return factor, float(y.mean()) - factor * float(x.mean())


def _scaled_by_channel(culprit: Culprit) -> Iterator[str]:
    """Each channel has its own factor or its own offset: what batch norm and biases do."""
    offsets = np.mean(culprit.expected - culprit.answer, axis=(0, 2), keepdims=True)
    if culprit.explains(culprit.answer + offsets):
        size = np.abs(offsets).ravel()
        count = np.count_nonzero(size > 1e-3 * size.max())
        yield f"bias: {count} of {size.size} channels are off by a constant, as where a bias is dropped or changed"
        return
    channels = range(culprit.answer.shape[1])
    lines = np.array([_line(culprit.answer[:, at].ravel(), culprit.expected[:, at].ravel()) for at in channels])
    factors, added = (lines[None, :, part, None] for part in (0, 1))
    if culprit.explains(culprit.answer * factors + added):
        changed = np.count_nonzero(np.abs(factors - 1) > _CHANGED)
        if np.ptp(factors) < _CHANGED:
            yield f"scale: its products, and not its bias, are {1 / factors.mean():.7g} times what they should be"
            return
        yield (
            f"epsilon: {changed} of {len(channels)} channels have a factor of their own "
            f"({factors.min():.7g} to {factors.max():.7g}), as where batch norm's epsilon or statistics are others"
        )


def _scaled_by_picture(culprit: Culprit) -> Iterator[str]:
    """Each channel of each picture has its own factor: what squeeze-excite does."""
    energy = np.sum(culprit.answer**2, axis=2, keepdims=True)
    dots = np.sum(culprit.answer * culprit.expected, axis=2, keepdims=True)
    factors = np.divide(dots, energy, out=np.ones_like(dots), where=energy > 0)
    if culprit.answer.shape[2] > 1 and culprit.explains(culprit.answer * factors):
        yield "squeeze-excite: each channel of each picture lacks a factor of its own: a gate is bypassed or wrong"


def _dropped(culprit: Culprit) -> Iterator[str]:
    gone = (culprit.answer == 0) & (culprit.expected != 0)
    share = float(gone.mean()) / max(float((culprit.expected != 0).mean()), 1e-9)
    kept = ~gone & (culprit.expected != 0)
    if not _DROPPED[0] < share < _DROPPED[1] or not kept.any():
        return
    factor, _ = _line(culprit.expected[kept], culprit.answer[kept])
    if np.allclose(culprit.answer[kept], factor * culprit.expected[kept], rtol=1e-2):
        yield f"dropout: {share:.0%} of the numbers are 0 and the others {factor:.3g} times larger: it is left active"


def _coarse(culprit: Culprit) -> Iterator[str]:
    """Numbers that a narrower type holds exactly."""
    kernel = [(f"input {name}", _constant(culprit, name)) for name in culprit.node.input[1:2]]
    for name, array in kernel if culprit.is_rounded else [("output", culprit.output), *kernel]:
        if array is not None and array.dtype == np.float32 and array.size > 1:
            bits = np.ascontiguousarray(array).view(np.uint32)
            if not (bits & np.uint32(0xFFFF)).any():
                yield f"precision: every number of its {name} is a bf16 number"
            elif not (bits & np.uint32(0x1FFF)).any():
                yield f"precision: every number of its {name} has no more digits than float16 or TF32"


def _constant(culprit: Culprit, name: str) -> Array | None:
    return next((culprit.known[name] for one in culprit.model.graph.initializer if one.name == name), None)
