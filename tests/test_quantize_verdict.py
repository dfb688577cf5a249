"""Go and no-go from made-up times and answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mbexport.quantize.change import Change
from mbexport.quantize.verdict import PROCESSES, Timing, judged, verdict_of

if TYPE_CHECKING:
    from mbexport.quantize.verdict import Verdict

SAME = Change(
    pictures=200,
    top1=0.8,
    top1_drop=0.0,
    top1_drop_ci=(-0.004, 0.004),
    top5_drop=0.0,
    top5_drop_ci=(-0.004, 0.004),
    expected_drop=0.001,
    agreement=0.97,
    agreement_ci=(0.95, 0.99),
    sqnr_db=30.0,
)


def timing(*times_ms: float, precision: str = "int8", memory_bytes: int = 10) -> Timing:
    times = times_ms * PROCESSES if len(times_ms) == 1 else times_ms
    return Timing(p50s_s=[each * 1e-3 for each in times], precision=precision, memory_bytes=memory_bytes)


def verdict(
    narrow: Timing | None = None,
    default: Timing | None = None,
    least_sqnr_db: float | None = None,
    max_drop: float = 0.005,
    plain: Change = SAME,
    **changes: Any,
) -> Verdict:
    clocked = {
        ("openvino:cpu", "f32"): timing(3, precision="f32", memory_bytes=30),
        ("openvino:cpu", "narrow"): narrow or timing(1),
        ("ort:cpu", "f32"): timing(100, precision="f32"),
        ("ort:cpu", "narrow"): timing(400),
    }
    if default is not None:
        clocked["openvino:cpu", "default"] = default
    return verdict_of(
        "openvino:cpu",
        msgspec.structs.replace(SAME, **changes),
        plain,
        clocked=clocked,
        max_drop=max_drop,
        least_sqnr_db=least_sqnr_db,
        model_bytes=(7, 28),
    )


def test_go() -> None:
    found = verdict()
    assert (found.go, found.better, found.runtime) == (True, None, "openvino:cpu")
    assert [found.speedup, *found.speedup_ci] == pytest.approx([3, 3, 3])
    assert [found.p50_s, found.float32_p50_s] == pytest.approx([1e-3, 3e-3])
    assert found.bf16_p50_s is None
    assert (found.model_bytes, found.float32_model_bytes) == (7, 28)
    assert (found.memory_bytes, found.float32_memory_bytes, found.precision) == (10, 30, "int8")
    assert (found.top1_drop, found.agreement, found.sqnr_db, found.pictures) == (0.0, 0.97, 30.0, 200)


def test_speed_is_of_pairs() -> None:
    """The machine grew slower by the run; each pair says 2 but for one, which is 1.5."""
    clocked = {
        ("ort:cpu", "f32"): timing(2, 4, 6, 8, 30, precision="f32"),
        ("ort:cpu", "narrow"): timing(1, 2, 3, 4, 20),
    }
    found = verdict_of("ort:cpu", SAME, SAME, clocked=clocked, max_drop=0.005, least_sqnr_db=None, model_bytes=(1, 2))
    assert found.speedup == pytest.approx(2)
    assert found.speedup_ci == pytest.approx((1.5, 2))


@pytest.mark.parametrize(("slowest_ms", "word"), [(2.9, "faster than float32, and"), (3.1, "not beyond noise, and")])
def test_the_median_decides_and_noise_is_told(slowest_ms: float, word: str) -> None:
    found = verdict(timing(1, 1, slowest_ms, 1, 1))
    assert found.go
    assert (found.speedup_ci[0] < 1) == ("noise" in word)
    assert word in found.reason


def test_no_go_where_it_is_slow() -> None:
    found = verdict(timing(4))
    assert (found.go, found.better) == (False, "f32")
    assert found.speedup == pytest.approx(0.75)
    assert found.reason == "1.33 times as slow as float32: better f32"


def test_bf16_is_named_where_it_is_better() -> None:
    bf16 = timing(0.8, precision="bf16")
    found = verdict(timing(1), bf16)
    assert (found.go, found.better) == (False, "bf16")
    assert found.bf16_p50_s == pytest.approx(0.8e-3)
    assert "bf16 of the float32 file is no slower" in found.reason
    assert found.reason.endswith("better bf16")
    assert verdict(timing(0.5), bf16).go
    slow = verdict(timing(4), timing(2, precision="bf16"))
    assert (slow.go, slow.better) == (False, "bf16")
    assert verdict(timing(4), timing(3.5, precision="bf16")).better == "f32"


def test_bf16_that_loses_too_much_is_no_choice() -> None:
    bf16, lossy = (
        timing(0.8, precision="bf16"),
        msgspec.structs.replace(SAME, top1_drop=0.02, top1_drop_ci=(0.01, 0.03)),
    )
    assert verdict(timing(1), bf16, plain=lossy).go
    slow = verdict(timing(4), bf16, plain=lossy)
    assert (slow.go, slow.better) == (False, "f32")


def test_labels_that_point_the_other_way_are_told() -> None:
    found = verdict(top1_drop=0.0175, top1_drop_ci=(0.001, 0.034), expected_drop=0.0023)
    assert (found.go, found.rule) == (True, "expected")
    assert "expected to lose 0.23 points; the 1.75 counted on 200 pictures may be chance" in found.reason


def test_float32_at_its_defaults_is_no_bf16() -> None:
    found = verdict(timing(1), timing(0.8, precision="f32"))
    assert (found.go, found.bf16_p50_s) == (True, None)


def test_both_faults_are_told() -> None:
    found = verdict(timing(4), top1_drop=0.05, top1_drop_ci=(0.03, 0.07))
    assert not found.go
    assert "as slow as float32; loses 5.00 points of top-1, at most 0.5 may be lost" in found.reason


@pytest.mark.parametrize(
    ("drop", "interval", "expected", "rule", "go"),
    [
        (0.02, (0.01, 0.03), 0.0, "top-1", False),  # beyond chance, whatever is expected
        (-0.02, (-0.03, -0.01), 0.02, "top-1", True),  # beyond chance on the right side
        (0.001, (-0.002, 0.004), 0.02, "top-1", True),
        (0.02, (-0.01, 0.05), 0.004, "expected", True),  # chance: too few pictures to tell
        (0.0, (-0.02, 0.02), 0.006, "expected", False),
        (None, None, 0.004, "expected", True),  # no labels
        (None, None, 0.006, "expected", False),
    ],
)
def test_what_is_lost_is_judged_by_what_can_tell(
    drop: float | None, interval: tuple[float, float] | None, expected: float, rule: str, go: bool
) -> None:
    found = verdict(top1_drop=drop, top1_drop_ci=interval, expected_drop=expected)
    assert (found.rule, found.go) == (rule, go)
    assert found.better == (None if go else "f32")
    if not go:
        assert "points of top-1, at most 0.5 may be lost" in found.reason
    assert verdict(max_drop=0.05, top1_drop=drop, top1_drop_ci=interval, expected_drop=expected).go


@pytest.mark.parametrize(("least_db", "go"), [(29.0, True), (31.0, False)])
def test_random_weights_are_judged_by_their_distance(least_db: float, go: bool) -> None:
    found = verdict(least_sqnr_db=least_db, top1_drop=0.5, top1_drop_ci=(0.4, 0.6), expected_drop=0.5)
    assert (found.rule, found.go) == ("sqnr", go)
    if not go:
        assert "stands 30.0 dB from float32, at least 31.0 dB are asked for" in found.reason


def test_answers_that_are_equal_are_near_enough() -> None:
    same = msgspec.structs.replace(SAME, sqnr_db=None, expected_drop=0.0, agreement=1.0)
    assert judged(same, 0.005, 40.0) == ("sqnr", None)


@pytest.mark.parametrize("sqnr_db", [30.0, None])
def test_without_a_floor_nothing_is_judged(sqnr_db: float | None) -> None:
    found = verdict(least_sqnr_db=math.nan, sqnr_db=sqnr_db)
    assert (found.rule, found.go, found.better) == ("sqnr", False, "f32")
    assert found.reason.startswith("nothing could be judged, for bf16 has no finite distance")


@pytest.mark.parametrize("least_db", [None, 20.0])
def test_answers_that_are_no_numbers_are_a_no_go(least_db: float | None) -> None:
    found = verdict(least_sqnr_db=least_db, sqnr_db=None, finite=False)
    assert (found.go, found.better) == (False, "f32")
    assert "answers that are not finite" in found.reason
