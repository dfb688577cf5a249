from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbexport.compare import centred_log, compare, is_flat, sqnr_db


def test_sqnr_is_signal_energy_over_error_energy() -> None:
    # An error of a tenth of every value: 10 log10(1 / 0.1^2) = 20 dB.
    assert sqnr_db(np.full(7, 2.0), np.full(7, 2.2)) == pytest.approx(20.0)
    # Signal 3^2 + 4^2 = 25, error 0.5^2 = 0.25: a ratio of 100, 20 dB, and not the mean of the rows' own ratios.
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)


@given(st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_sqnr_does_not_depend_on_the_unit(scale: float, seed: int) -> None:
    truth, error = np.random.default_rng(seed).normal(size=(2, 50))
    assert sqnr_db(truth * scale, (truth + error / 100) * scale) == pytest.approx(sqnr_db(truth, truth + error / 100))


def test_float32_rounding_stays_above_the_ceiling_of_the_noise_floor() -> None:
    truth = np.random.default_rng(0).normal(size=10_000)
    assert sqnr_db(truth, truth.astype(np.float32)) > 20 * math.log10(2**24)
    assert sqnr_db(truth, truth.astype(np.float16)) < 80


def test_errors_are_in_the_outputs_own_unit() -> None:
    result = compare(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 2.0, 3.0, 6.0]]), threshold_db=0)
    assert (result.max_abs_error, result.mean_abs_error) == (2.0, 0.5)


def test_bit_equal_passes_without_a_ratio() -> None:
    truth = np.array([[1.0, 2.0]])
    result = compare(truth, truth.astype(np.float32), threshold_db=500)
    assert result
    assert (result.sqnr_db, result.reason, result.max_abs_error) == (None, None, 0.0)


def test_threshold_decides() -> None:
    truth, answer = np.full((1, 4), 2.0), np.full((1, 4), 2.2)
    assert compare(truth, answer, threshold_db=19.9)
    result = compare(truth, answer, threshold_db=20.1)
    assert not result
    assert result.reason is not None
    assert "20.0 dB is below 20.1 dB" in result.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_fail_without_a_ratio(bad: float) -> None:
    result = compare(np.ones((2, 3)), np.array([[1, 1, 1], [1, bad, 1]]), threshold_db=-1000)
    assert not result
    assert result.sqnr_db is None
    assert result.max_abs_error is None
    assert result.reason == "1 of 6 numbers are not finite"
    assert "reference" in str(compare(np.array([bad]), np.ones(1), threshold_db=-1000).reason)


def test_another_shape_fails_even_where_numpy_would_broadcast() -> None:
    result = compare(np.ones((2, 3)), np.ones((1, 3)), threshold_db=-1000)
    assert not result
    assert result.reason == "expected shape (2, 3), got (1, 3)"


def test_all_zero_reference() -> None:
    assert compare(np.zeros((1, 3)), np.zeros((1, 3)), threshold_db=100)
    result = compare(np.zeros((1, 3)), np.full((1, 3), 1e-30), threshold_db=-1000)
    assert not result
    assert result.sqnr_db is None
    assert "all zero" in str(result.reason)


def test_top1_agreement_counts_rows() -> None:
    truth = np.eye(4) + 0.01
    answer = truth[[0, 1, 2, 0]]
    assert compare(truth, answer, threshold_db=0, classifier=True).top1_agreement == 0.75
    assert compare(truth, answer, threshold_db=0).top1_agreement is None
    assert compare(truth[:, :1], answer[:, :1], threshold_db=0, classifier=True).top1_agreement is None


def test_centred_log_gives_the_logits_back_without_their_offset() -> None:
    logits = np.random.default_rng(0).normal(scale=5, size=(3, 10))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(centred_log(softmax), logits - logits.mean(axis=-1, keepdims=True), atol=1e-12)


def test_centred_log_treats_underflow_alike_on_both_sides() -> None:
    truth = np.array([[1.0, 1e-60, 1e-42]])
    assert compare(centred_log(truth), centred_log(truth.astype(np.float32)), threshold_db=140)
    assert compare(centred_log(truth), centred_log(np.array([[1.0, 0.0, 0.0]], np.float32)), threshold_db=140)


def test_centred_log_does_not_hide_negative_or_missing_probabilities() -> None:
    assert np.isnan(centred_log(np.array([[1.0, -1e-50]]))).any()
    assert np.isnan(centred_log(np.array([[1.0, math.nan]]))).all()


def test_one_class_has_nothing_to_centre() -> None:
    assert centred_log(np.ones((3, 1))).tolist() == [[0.0]] * 3


def test_logits_of_a_softmax_that_saturates() -> None:
    """Engines flush probabilities near 2^-126 to 0 or not; that choice must not show as an error of the logits."""
    logits = np.linspace(-95.0, 20.0, 500)
    exact = np.exp(logits - logits.max())
    exact /= exact.sum()
    flushed = np.where(exact < 2.4e-38, 0, exact).astype(np.float32)  # as TensorFlow's float32 softmax does
    assert (flushed == 0).any()
    assert sqnr_db(centred_log(exact), centred_log(flushed)) > 140


def test_probabilities_of_an_untrained_network_are_flat() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 50))
    for scale, flat in ((1.0, False), (1e-3, False), (1e-6, True), (0.0, True)):
        exponents = np.exp(logits * scale)
        assert is_flat(exponents / exponents.sum(axis=-1, keepdims=True)) == flat, scale
