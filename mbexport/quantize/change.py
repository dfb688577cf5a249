"""What a narrower precision changes in a network's answers, picture by picture, each figure with its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mbexport.compare import centred_log, sqnr_db
from mbexport.shares import paired_drop, wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mbexport.manifest import OutputContract


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Answers beside those of the float32 network. Shares of 1; intervals hold 95%."""

    pictures: int
    top1: float | None = None
    """Of the narrower network; None without labels."""
    top1_drop: float | None = None
    """Float32's top-1 minus this one's."""
    top1_drop_ci: tuple[float, float] | None = None
    top5_drop: float | None = None
    top5_drop_ci: tuple[float, float] | None = None
    expected_drop: float | None
    """Of top-1, by the float network's own probabilities of the classes that took another's place; None for features.

    Where those are true, it is the drop's expectation, of much less variance than the drop that labels show: it does
    not ask whether the coin fell, and pictures whose class stays add nothing."""
    agreement: float | None
    """Share of pictures with the same most probable class; None for features."""
    agreement_ci: tuple[float, float] | None
    sqnr_db: float | None
    """In the quantity that is compared: centred logits, or features. None where both are equal or not finite."""
    finite: bool = True
    """Whether the narrower network's answers are."""


def change(
    output: OutputContract, exact: NDArray[np.float32], narrow: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> Change:
    """Compare answers to the same pictures, (pictures, classes) or features."""
    difference = sqnr_db(*_quantity(output, exact, narrow))
    sqnr, finite = difference if math.isfinite(difference) else None, bool(np.isfinite(narrow).all())
    if output.kind == "features":
        return Change(
            pictures=len(exact), expected_drop=None, agreement=None, agreement_ci=None, sqnr_db=sqnr, finite=finite
        )
    same = int((exact.argmax(axis=-1) == narrow.argmax(axis=-1)).sum())
    found = Change(
        pictures=len(exact),
        expected_drop=_expected_drop(output, exact, narrow),
        agreement=same / len(exact),
        agreement_ci=wilson_interval(same, len(exact)),
        sqnr_db=sqnr,
        finite=finite,
    )
    if labels is None:
        return found
    drop, drop_ci = paired_drop(_right(exact, labels, 1), _right(narrow, labels, 1))
    drop5, drop5_ci = paired_drop(_right(exact, labels, 5), _right(narrow, labels, 5))
    return msgspec.structs.replace(
        found,
        top1=float(_right(narrow, labels, 1).mean()),
        top1_drop=drop,
        top1_drop_ci=drop_ci,
        top5_drop=drop5,
        top5_drop_ci=drop5_ci,
    )


def _quantity(
    output: OutputContract, exact: NDArray[np.float32], narrow: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if output.kind == "probabilities":
        return centred_log(exact), centred_log(narrow)
    one, other = exact.astype(np.float64), narrow.astype(np.float64)
    if output.kind == "logits":
        offset = one.mean(axis=-1, keepdims=True)
        return one - offset, other - offset
    return one, other


def _expected_drop(output: OutputContract, exact: NDArray[np.float32], narrow: NDArray[np.float32]) -> float:
    shares = exact.astype(np.float64)
    if output.kind == "logits":
        shares = np.exp(shares - shares.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
    taken = np.take_along_axis(shares, narrow.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    return float((shares.max(axis=-1) - taken).mean())


def _right(scores: NDArray[np.float32], labels: NDArray[np.int64], places: int) -> NDArray[np.bool_]:
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :places]
    right: NDArray[np.bool_] = (best == labels[:, None]).any(axis=1)
    return right
