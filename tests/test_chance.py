from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from mbexport import thresholds
from mbexport.accuracy.chance import chance_db, free_numbers
from mbexport.manifest import OutputContract
from mbexport.pictures import reference_count

if TYPE_CHECKING:
    from mbexport.manifest import OutputKind


def allowed_db(pictures: int, classes: int, kind: OutputKind = "probabilities") -> float:
    output = OutputContract(name="y", shape=[None, classes], kind=kind)
    return chance_db(output, np.zeros((pictures, classes)))


@pytest.mark.parametrize(("pictures", "classes"), [(4, 3), (4, 10), (1, 10), (1, 1000), (4, 1000), (100, 2)])
def test_is_the_quantile_of_two_sums_of_squares(pictures: int, classes: int) -> None:
    """SciPy's F distribution, for the numbers that are free and the limit to them."""
    free = pictures / (1 / (classes - 1) + 1 / thresholds.NOISE_FREEDOMS)
    wanted = 10 * math.log10(stats.f.isf(stats.norm.sf(thresholds.CHANCE_DEVIATIONS), free, free))
    assert allowed_db(pictures, classes) == pytest.approx(wanted, rel=0.03)


def test_once_in_ten_thousand() -> None:
    assert stats.norm.sf(thresholds.CHANCE_DEVIATIONS) == pytest.approx(1e-4, rel=0.02)


def test_two_classes_are_worth_one_number() -> None:
    assert allowed_db(4, 2) == allowed_db(4, 1) == allowed_db(4, 1, "features")
    assert allowed_db(4, 3) == allowed_db(4, 2, "features")


def test_more_numbers_leave_less_to_chance() -> None:
    found = [allowed_db(4, 2), allowed_db(4, 10), allowed_db(4, 1000), allowed_db(50, 1000)]
    assert found == sorted(found, reverse=True)


def test_of_a_single_number_nothing_can_be_said() -> None:
    assert allowed_db(1, 1) == allowed_db(1, 2) == math.inf


@pytest.mark.parametrize("kind", ["probabilities", "logits", "features"])
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 10, 1000])
def test_a_reference_has_pictures_enough_for_the_limit_of_float32(classes: int, kind: OutputKind) -> None:
    count = reference_count(free_numbers(kind, [classes]))
    assert allowed_db(count, classes, kind) <= thresholds.F32_MARGIN_DB
    assert count == 4 or allowed_db(count // 2, classes, kind) > thresholds.F32_MARGIN_DB


def test_free_numbers() -> None:
    assert free_numbers("probabilities", [2]) == free_numbers("logits", [2]) == 1  # centring takes the other
    assert free_numbers("features", [2]) == 2
    assert free_numbers("features", [7, 7, 96]) == 7 * 7 * 96
    assert free_numbers("probabilities", [1]) == 1
