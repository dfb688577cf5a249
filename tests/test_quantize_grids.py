"""The steps of 8-bit numbers, held against every range that could have been chosen."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbexport.quantize import counts, grids
from mbexport.quantize.channel_grids import cautious_grid, channel_grid
from mbexport.quantize.counts import count, count_halves

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mbexport.quantize.grids import Grid

    Floats = NDArray[np.float32]

CHANNELS = 4
EVEN = np.ones(CHANNELS)
CHOSEN: dict[str, Callable[[Floats], Grid]] = {
    "tensor": lambda numbers: grids.tensor_grid(count([numbers]), EVEN),
    "min-max": lambda numbers: grids.tensor_grid(count([numbers]), EVEN, clip=False),
    "hard-swish": lambda numbers: grids.hard_swish_grid(count([numbers]), EVEN),
    "channel": lambda numbers: channel_grid(count([numbers])),
    "channel, cautious": lambda numbers: cautious_grid(count_halves([numbers]), EVEN),
    "channel min-max": lambda numbers: channel_grid(count([numbers]), clip=False),
}


def drawn(kind: str, shape: tuple[int, ...] = (6, CHANNELS, 12, 12)) -> Floats:
    rng = np.random.default_rng(0)
    found: dict[str, Callable[[], NDArray[Any]]] = {
        "normal": lambda: rng.normal(size=shape),
        "positive": lambda: rng.uniform(2, 3, shape),
        "negative": lambda: rng.uniform(-3, -2, shape),
        "cut": lambda: np.maximum(rng.normal(size=shape), 0),
        "heavy": lambda: rng.standard_t(3, shape),
        "unlike": lambda: rng.laplace(size=shape) * np.array([1, 0.3, 5, 30])[:, None, None],
        "constant": lambda: np.full(shape, 0.7),
        "dead": lambda: np.zeros(shape),
        "dead channel": lambda: rng.normal(size=shape) * np.array([1, 0, 1, 1])[:, None, None],
    }
    return np.asarray(found[kind](), np.float32)


KINDS = ["normal", "positive", "negative", "cut", "heavy", "unlike", "constant", "dead", "dead channel"]


def naive(numbers: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Rounding to 256 levels from low to high, one of which is 0."""
    step = (high - low) / 255
    below = round(-low / step)
    return np.asarray(np.clip(np.rint(numbers / step), -below, 255 - below) * step, np.float64)


def noise(numbers: NDArray[Any], rounded: NDArray[Any], gains: NDArray[Any] = EVEN) -> float:
    return float(np.square(rounded - numbers.astype(np.float64)).sum(axis=(0, 2, 3)) @ gains)


def least_noise(numbers: Floats, gains: NDArray[Any] = EVEN) -> float:
    """Of all ranges within the extremes, at a few hundred places."""
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    lows = low * np.linspace(1, 0.02, 25) if low else [0.0]
    highs = high * np.linspace(1, 0.02, 25) if high else [0.0]
    return min(noise(numbers, naive(numbers, *ends), gains) for ends in product(lows, highs))


@pytest.mark.parametrize("form", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_a_level_and_numbers_within_move_by_half_a_step(form: str, kind: str) -> None:
    numbers = drawn(kind)
    grid = CHOSEN[form](numbers)
    assert [array.dtype.name for array in (grid.scale, grid.zero_point)] == ["float32", "uint8"]
    assert np.isfinite(grid.scale).all()
    assert (grid.scale > 0).all()
    assert not grid.rounded(np.zeros((1, CHANNELS, 1, 1), np.float32)).any()
    assert (grid.low <= 0).all()
    assert (grid.high >= 0).all()
    shape = (1, -1, 1, 1) if grid.scale.ndim else ()
    low, high, step = (part.reshape(shape) for part in (grid.low, grid.high, grid.scale))
    rounded = grid.rounded(numbers)
    assert (np.abs(rounded - np.clip(numbers, low, high)) <= step / 2 * (1 + 1e-4)).all()
    levels = rounded / step
    assert np.allclose(levels, np.rint(levels), atol=1e-3)


@pytest.mark.parametrize("form", ["tensor", "min-max", "channel", "channel, cautious", "channel min-max"])
@pytest.mark.parametrize("kind", KINDS)
def test_small_numbers_have_small_steps(form: str, kind: str) -> None:
    """A dead channel has no range of its own that the others would have to share."""
    if kind == "dead":
        return
    numbers = drawn(kind)
    usual, small = CHOSEN[form](numbers), CHOSEN[form](numbers * np.float32(2.0**-20))
    rel = 1e-3 if form == "channel, cautious" else 1e-5  # of channels of one width, any may be drawn to any
    assert usual.scale == pytest.approx(small.scale * 2.0**20, rel=rel)
    assert np.array_equal(usual.zero_point, small.zero_point)


@pytest.mark.parametrize("kind", KINDS)
def test_extremes_have_levels_where_nothing_is_clipped(kind: str) -> None:
    numbers = drawn(kind)
    whole, by_channel = CHOSEN["min-max"](numbers), CHOSEN["channel min-max"](numbers)
    assert whole.low - whole.scale / 2 <= numbers.min()
    assert whole.high + whole.scale / 2 >= numbers.max()
    assert (by_channel.low - by_channel.scale / 2 <= numbers.min(axis=(0, 2, 3))).all()
    assert (by_channel.high + by_channel.scale / 2 >= numbers.max(axis=(0, 2, 3)) * (1 - 1e-6)).all()


@pytest.mark.parametrize("gains", [EVEN, np.array([1, 1, 1, 1e-3]), np.array([0, 0, 1, 0])], ids=["1", "less", "one"])
@pytest.mark.parametrize("kind", ["normal", "positive", "negative", "cut", "heavy", "unlike", "dead channel"])
def test_range_of_a_tensor_is_as_good_as_any(kind: str, gains: NDArray[Any]) -> None:
    """On the numbers themselves, where it is chosen on their histogram: that costs a few percent."""
    numbers = drawn(kind)
    counted = count([numbers[:2], numbers[2:]])
    chosen = noise(numbers, grids.tensor_grid(counted, gains).rounded(numbers), gains)
    assert chosen <= 1.03 * noise(numbers, grids.tensor_grid(counted, gains, clip=False).rounded(numbers), gains)
    assert chosen <= 1.2 * least_noise(numbers, gains)


def test_what_nothing_reads_does_not_widen_the_range() -> None:
    numbers = drawn("unlike")
    narrow = grids.tensor_grid(count([numbers]), np.array([1, 1, 0, 0]))
    assert narrow.high < np.abs(numbers[:, :2]).max() * 1.1
    assert CHOSEN["tensor"](numbers).high > 2 * narrow.high


@pytest.mark.parametrize("kind", ["normal", "positive", "negative", "cut", "heavy", "unlike"])
def test_range_of_each_channel_is_as_good_as_any(kind: str) -> None:
    numbers = drawn(kind)
    counted = count([numbers])
    chosen = noise(numbers, channel_grid(counted).rounded(numbers))
    assert chosen <= 1.03 * noise(numbers, channel_grid(counted, clip=False).rounded(numbers))
    best = sum(least_noise(numbers[:, at : at + 1], np.ones(1)) for at in range(CHANNELS))
    assert chosen <= 1.12 * best


def test_one_scale_a_channel_is_better_where_channels_are_unlike() -> None:
    numbers = drawn("unlike")
    even = 1 / np.square(numbers, dtype=np.float64).mean(axis=(0, 2, 3))  # each channel's noise beside its own power
    by_channel = noise(numbers, CHOSEN["channel"](numbers).rounded(numbers), even)
    assert by_channel < 0.1 * noise(numbers, CHOSEN["tensor"](numbers).rounded(numbers), even)


def test_a_channel_that_was_always_zero_can_still_be_something() -> None:
    """On other pictures; and the bias behind it, in units of its scale, must fit into 32 bits."""
    grid = CHOSEN["channel"](drawn("dead channel"))
    assert grid.scale[1] >= 1e-4 * grid.scale.max()


@pytest.mark.parametrize("kind", KINDS)
def test_hard_swish_in_the_same_numbers(kind: str) -> None:
    """3 is ``zero_point`` steps, so a number read with a zero point of 0 is what it stands for, plus 3."""
    grid = CHOSEN["hard-swish"](drawn(kind))
    assert grid.scale.shape == ()
    assert int(grid.zero_point) >= 1
    assert float(grid.scale) == pytest.approx(3 / int(grid.zero_point), rel=1e-6)


@pytest.mark.parametrize("spread", [0.3, 1, 5, 30])
def test_hard_swish_range_is_as_good_as_any(spread: float) -> None:
    """By the error that is left behind a hard-swish."""
    numbers = drawn("normal") * np.float32(spread)

    def left(rounded: NDArray[Any]) -> float:
        after = [x * np.clip(x + 3, 0, 6) / 6 for x in (numbers.astype(np.float64), rounded.astype(np.float64))]
        return float(np.square(after[0] - after[1]).sum())

    chosen = left(CHOSEN["hard-swish"](numbers).rounded(numbers))
    tried = [left(naive(numbers, -3.0, 3.0 * (255 - point) / point)) for point in range(1, 256)]
    assert chosen <= 1.05 * min(tried)


def test_hard_swish_is_its_definition() -> None:
    assert grids.hard_swish(np.array([-4.0, -3, -1.5, 0, 1, 3, 5])) == pytest.approx([0, 0, -0.375, 0, 2 / 3, 3, 5])


def test_batches_and_rows_count_alike() -> None:
    """Maps, matrices, and however they are cut."""
    numbers = drawn("heavy")
    whole, parts = count([numbers]), count([numbers[:1], numbers[1:4], numbers[4:]])
    assert np.array_equal(whole.counts, parts.counts)
    assert np.array_equal(whole.values, parts.values)
    flat = numbers.transpose(0, 2, 3, 1).reshape(-1, CHANNELS)
    assert np.array_equal(count([np.ascontiguousarray(flat)]).counts, whole.counts)
    centres = (whole.counts * whole.values).sum(axis=1) / whole.counts.sum(axis=1)
    assert centres == pytest.approx(numbers.mean(axis=(0, 2, 3)), abs=0.02)


def test_halves_are_every_other_picture() -> None:
    numbers = drawn("heavy", (5, CHANNELS, 3, 3))
    one, other = count_halves([numbers[:3], numbers[3:]])
    for found, shown in ((one, numbers[::2]), (other, numbers[1::2])):
        assert found.counts.sum() == shown.size
        seen = np.where(found.counts > 0, found.values, np.nan)
        bin_width = (one.values[:, 1] - one.values[:, 0])[:, None]
        ends = np.stack([shown.min(axis=(0, 2, 3)), shown.max(axis=(0, 2, 3))], axis=1)
        assert (np.abs(np.stack([np.nanmin(seen, 1), np.nanmax(seen, 1)], axis=1) - ends) <= bin_width / 2 + 1e-6).all()
    assert not count_halves([numbers[:1]])[1].counts.any()


def test_extremes_count_where_numbers_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = drawn("normal")
    monkeypatch.setattr(counts, "_MOST_SAMPLES", numbers.size // 5)
    numbers[3, :, 0, 1], numbers[2, :, 0, 1] = 50, -50  # between the samples
    one, other = count_halves([numbers])
    assert one.counts[:, 0].tolist() == other.counts[:, -1].tolist() == [1] * CHANNELS
    assert not one.counts[:, -1].any()


def test_channels_that_answer_to_few_pictures_are_not_cut_off_on_others() -> None:
    """Each channel is large on one picture in 50 and else small: half of them never are on these."""
    rng = np.random.default_rng(3)
    wide = np.where(rng.random((100, 64, 1, 1)) < 0.02, 10.0, 0.5)
    numbers, others = (rng.uniform(0, 1, (100, 64, 4, 4)) * each for each in (wide, np.roll(wide, 17, axis=1)))
    counted = count_halves([numbers.astype(np.float32)])
    gains = np.ones(64)
    cautious, own = cautious_grid(counted, gains), channel_grid(count([numbers.astype(np.float32)]))
    lost = [noise(others, each.rounded(others.astype(np.float32)), gains) for each in (cautious, own)]
    assert lost[0] < 0.1 * lost[1]


def test_channels_that_are_the_same_on_all_pictures_keep_their_own_ranges() -> None:
    numbers = drawn("unlike", (40, CHANNELS, 8, 8))
    even = 1 / np.square(numbers, dtype=np.float64).mean(axis=(0, 2, 3))
    own, cautious = channel_grid(count([numbers])), cautious_grid(count_halves([numbers]), even)
    assert (cautious.scale <= 1.3 * own.scale).all()
