"""What a narrower precision changes, computed a second time from the definitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from mbexport.manifest import OutputContract, OutputKind
from mbexport.quantize.change import change

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mbexport.quantize.change import Change


def output(kind: OutputKind, width: int) -> OutputContract:
    return OutputContract(name=kind, shape=[None, width], kind=kind)


def one_hot(classes: list[int], width: int = 6) -> NDArray[np.float32]:
    """Logits whose best is the class, and then those that follow it."""
    scores = -((np.arange(width)[None] - np.array(classes)[:, None]) % width)
    return np.asarray(scores, np.float32)


def paired(lost: int, won: int, both: int, neither: int) -> Change:
    """Pictures of class 0: so many right in float32 alone, in the narrower alone, in both, in neither."""
    exact = [0] * lost + [1] * won + [0] * both + [1] * neither
    narrow = [1] * lost + [0] * won + [0] * both + [1] * neither
    labels = np.zeros(len(exact), np.int64)
    return change(output("logits", 6), one_hot(exact), one_hot(narrow), labels)


@pytest.mark.parametrize("table", [(7, 2, 80, 11), (0, 0, 50, 0), (1, 0, 19, 0), (0, 5, 30, 10), (20, 20, 20, 20)])
def test_drop_is_of_pairs(table: tuple[int, int, int, int]) -> None:
    """A. Agresti and Y. Min, Statistics in Medicine 24 (2005), section 3: Wald's interval, 1/2 added to each cell."""
    lost, won, both, _ = table
    found, count = paired(*table), sum(table)
    assert found.pictures == count
    assert found.top1 == pytest.approx((both + won) / count)
    assert found.top1_drop == pytest.approx((lost - won) / count)
    p12, p21 = ((cell + 0.5) / (count + 2) for cell in (lost, won))
    spread = stats.norm.ppf(0.975) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (count + 2))
    assert found.top1_drop_ci == pytest.approx((p12 - p21 - spread, p12 - p21 + spread), abs=1e-6)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.06, 0.03, 0.7, 0.21])
    hits = 0
    for _ in range(300):
        low, high = paired(*rng.multinomial(150, shares).tolist()).top1_drop_ci or (0.0, 0.0)
        hits += low <= 0.03 <= high
    assert stats.binomtest(hits, 300, 0.95).pvalue > 0.001


def test_pictures_that_both_have_wrong_widen_nothing() -> None:
    """What labels say of two networks that answer alike is certain but for pictures not seen."""
    low, high = paired(0, 0, 100, 900).top1_drop_ci or (1.0, -1.0)
    assert -0.003 < low < 0 < high < 0.003


def test_top5() -> None:
    """The right class is 5th, then 6th."""
    exact, narrow = one_hot([2, 2, 1]), one_hot([1, 2, 2])  # class 0 is 5th behind 2, and 6th behind 1
    found = change(output("logits", 6), exact, narrow, np.zeros(3, np.int64))
    assert found.top5_drop == pytest.approx(0.0)
    worse = change(output("logits", 6), exact[:2], narrow[:2], np.zeros(2, np.int64))
    assert (worse.top1_drop, worse.top5_drop) == (0.0, 0.5)


def test_agreement() -> None:
    rng = np.random.default_rng(0)
    exact, narrow = one_hot(rng.integers(0, 6, 40).tolist()), one_hot([0] * 40)
    expected = np.mean([int(row.argmax()) == 0 for row in exact])
    found = change(output("logits", 6), exact, narrow, None)
    assert found.agreement == pytest.approx(expected)
    interval = stats.binomtest(round(expected * 40), 40).proportion_ci(0.95, method="wilson")
    assert found.agreement_ci == pytest.approx((interval.low, interval.high), abs=1e-6)
    assert [found.top1, found.top1_drop, found.top1_drop_ci, found.top5_drop] == [None] * 4


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_expected_drop_by_hand(kind: OutputKind) -> None:
    """By 0.7 - 0.2 and 0.4 - 0.35 on two pictures of four; the others keep their class."""
    shares = np.array([[0.7, 0.2, 0.1], [0.4, 0.25, 0.35], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)
    best = [1, 2, 0, 2]
    exact = shares if kind == "probabilities" else np.log(shares) + np.float32(3)
    found = change(output(kind, 3), exact, np.eye(3, dtype=np.float32)[best], None)
    assert found.expected_drop == pytest.approx((0.5 + 0.05) / 4, abs=1e-6)


def test_expected_drop_is_the_mean_of_drops() -> None:
    """Of labels drawn by the float network's own probabilities."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(4), 60).astype(np.float32)
    narrow = (shares + 0.2 * rng.uniform(size=shares.shape)).astype(np.float32)
    drops: list[Any] = []
    for _ in range(400):
        labels = np.array([rng.choice(4, p=row / row.sum()) for row in shares.astype(np.float64)])
        drops.append(change(output("probabilities", 4), shares, narrow, labels).top1_drop)
    found = change(output("probabilities", 4), shares, narrow, None).expected_drop
    assert found == pytest.approx(np.mean(drops), abs=4 * float(np.std(drops)) / 20)
    assert found is not None
    assert found > 0


def decibels(truth: NDArray[Any], answer: NDArray[Any]) -> float:
    return 10 * math.log10(np.square(truth).sum() / np.square(truth - answer).sum())


def test_distance_of_logits_and_probabilities() -> None:
    """Softmax forgets the offset; of logits that the truth has not is an error."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 5)).astype(np.float32)
    noisy = logits + 0.01 * rng.normal(size=logits.shape).astype(np.float32)
    offset = logits.mean(axis=1, keepdims=True, dtype=np.float64)
    for moved in (0.0, 0.5):
        found = change(output("logits", 5), logits, noisy + np.float32(moved), None)
        assert found.sqnr_db == pytest.approx(decibels(logits - offset, noisy + moved - offset), abs=0.01)
    powers = [np.exp(array) / np.exp(array).sum(axis=1, keepdims=True) for array in (logits, noisy)]
    found = change(output("probabilities", 5), powers[0], powers[1], None)
    centred = noisy - noisy.mean(axis=1, keepdims=True, dtype=np.float64)
    assert found.sqnr_db == pytest.approx(decibels(logits - offset, centred), abs=0.01)


def test_features_have_a_distance_alone() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 4, 8)).astype(np.float32)
    found = change(output("features", 8), maps, maps * np.float32(1.1), np.zeros(3, np.int64))
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-3)
    assert [found.agreement, found.agreement_ci, found.expected_drop, found.top1_drop] == [None] * 4


@pytest.mark.parametrize("changed", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["logits", "features"])
def test_what_has_no_distance_has_none(kind: OutputKind, changed: float) -> None:
    """Equal, or no number: which of the two is told apart."""
    logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    other = logits.copy()
    other[1, 2] += changed
    found = change(output(kind, 5), logits, other, None)
    assert (found.sqnr_db, found.finite) == (None, changed == 0)
