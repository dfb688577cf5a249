"""What stays in float32, and what is tried."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mbexport.quantize.islands import Cpu, choices, first_worth_it
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, left_by, place, serves_both
from tests.quantizing import Writer, block, mobile

if TYPE_CHECKING:
    from mbexport.quantize.placement import Engine

EXPANDING = Islands(expanding=True)


def test_narrow_blocks_around_a_hard_swish() -> None:
    """Expansion, depthwise product and squeeze-excite; not the projection, and not the block with a ReLU."""
    network = Network(mobile())
    assert left_by(network, EXPANDING) == {"one/expand", "one/depthwise", "one/reduce", "one/excite"}
    tensors = place(network, "ort", EXPANDING).tensors
    assert not {name for name in tensors if name.startswith("one/")} - {"one/gated", "one/project", "one/sum"}


def test_a_block_without_a_gate() -> None:
    assert left_by(Network(mobile(gate=False)), EXPANDING) == {"one/expand", "one/depthwise"}


def test_no_block_with_a_relu() -> None:
    assert not left_by(Network(mobile("Relu")), EXPANDING)


def test_a_large_expansion_is_not_left() -> None:
    write = Writer()
    write.conv("x", "wide", (128, 3, 1))
    raised = write.active(write.conv("wide", "expand", (96, 128, 1)), "HardSwish", "raised")
    write.conv(raised, "depthwise", (96, 1, 3), group=96)
    network = Network(write.model({write.conv("depthwise", "project", (8, 96, 1)): 4}))
    assert np.prod(network.products["expand"].kernel.shape) > 10_000
    assert not left_by(network, EXPANDING)


def test_a_hard_swish_that_something_else_reads_too() -> None:
    write = Writer()
    raised = write.active(write.conv("x", "expand", (16, 3, 1)), "HardSwish", "raised")
    write.conv(raised, "depthwise", (16, 1, 3), group=16)
    total = write.add("Add", ["depthwise", raised], "sum")
    assert not left_by(Network(write.model({write.conv(total, "last", (8, 16, 1)): 4})), EXPANDING)


def in_blocks(*kinds: str) -> Network:
    """Blocks of an activation each, named by their number."""
    write = Writer()
    last = write.active(write.conv("x", "stem", (8, 3, 3)), "Relu", "start")
    for at, kind in enumerate(kinds):
        last = block(write, last, kind, str(at))
    return Network(write.model({write.conv(last, "last", (8, 8, 1)): 4}))


@pytest.mark.parametrize("islands", [EXPANDING, Islands(deep=1), Islands(1, deep=2)])
def test_no_product_in_float32_stands_alone_between_8_bit_numbers(islands: Islands) -> None:
    """ONNX Runtime would round its weights on its own."""
    network = in_blocks("HardSwish", "HardSwish", "HardSwish")
    placement = place(network, "ort", islands)
    for output in left_by(network, islands):
        product = network.products[output]
        reader = network.only_reader(output)
        given = {output, *(reader.output if reader is not None and reader.op_type in {"Relu", "Clip"} else ())}
        assert not (product.input in placement.tensors and given & placement.tensors.keys()), output


@pytest.mark.parametrize(("deep", "blocks"), [(0, []), (1, ["3"]), (2, ["1", "3"]), (9, ["0", "1", "3"])])
def test_deep_are_the_last_blocks_around_a_hard_swish(deep: int, blocks: list[str]) -> None:
    network = in_blocks("HardSwish", "HardSwish", "Relu", "HardSwish", "Relu")
    within = ("expand", "depthwise", "reduce", "excite")
    assert left_by(network, Islands(deep=deep)) == {f"{block}/{each}" for block in blocks for each in within}


def chain(products: int) -> Network:
    write, last = Writer(), "x"
    for at in range(products):
        last = write.conv(last, f"p{at}", (8, 3 if at == 0 else 8, 1))
    return Network(write.model({last: 4}))


@pytest.mark.parametrize(("products", "firsts"), [(1, [0]), (3, [0]), (4, [3]), (5, [3]), (6, [3, 5])])
def test_choices_leave_something_to_8_bits(products: int, firsts: list[int]) -> None:
    assert [islands.first for islands in choices(chain(products), "ort", Cpu(127, bf16=True))] == firsts


@pytest.mark.parametrize(("inputs", "is_left"), [(128, True), (2000, False)])
def test_the_last_block_is_left_unless_it_is_large(inputs: int, *, is_left: bool) -> None:
    write = Writer()
    stem = write.active(write.conv("x", "stem", (8, 3, 3)), "Relu", "start")
    narrow = block(write, block(write, stem, "Relu", "relu"), "HardSwish", "narrow")
    write.conv(narrow, "wide", (inputs, 8, 1))
    raised = write.active(write.conv("wide", "expand", (96, inputs, 1)), "HardSwish", "raised")
    inner = write.active(write.conv(raised, "deep", (96, 1, 3), group=96), "HardSwish", "inner")
    network = Network(write.model({write.conv(inner, "project", (8, 96, 1)): 4}))
    assert left_by(network, Islands(deep=1)) == ({"expand", "deep"} if is_left else set())
    assert left_by(network, Islands(deep=2)) >= {"narrow/expand", "narrow/depthwise"}


def test_pixels_are_in_8_bits_all_the_same() -> None:
    network = Network(mobile())
    assert left_by(network, Islands(3)) - left_by(network, Islands(3, pixels=True)) == {"stem"}


@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_more_is_tried_on_openvino_where_the_cpu_has_bf16(engine: Engine) -> None:
    network = in_blocks(*["HardSwish"] * 5)
    without, found = (choices(network, engine, Cpu(127, bf16=bf16)) for bf16 in (False, True))
    assert found[: len(without)] == without
    assert (found != without) == (engine == "openvino")


def test_with_amx_openvino_is_spared_what_is_slow_there() -> None:
    """The order counts: the first that none behind it betters is taken, and where no engine is here the very first."""
    write = Writer()
    narrow = block(write, write.active(write.conv("x", "stem", (8, 3, 3)), "Relu", "start"), "HardSwish", "narrow")
    for at in range(4):
        narrow = block(write, narrow, "Relu", str(at))
    wide = write.active(write.conv(write.conv(narrow, "wide", (128, 8, 1)), "expand", (96, 128, 1)), "HardSwish", "up")
    inner = write.active(write.conv(wide, "deep", (96, 1, 3), group=96), "HardSwish", "inner")
    network = Network(write.model({write.conv(inner, "project", (8, 96, 1)): 4}))
    all_of_them = Islands(7, pixels=True, expanding=True, deep=3)
    first = Islands(7, pixels=True)
    found = {amx: choices(network, "openvino", Cpu(127, bf16=True, amx=amx)) for amx in (False, True)}
    assert found[True] == [all_of_them, Islands()]
    assert [each for each in found[False] if each.deep == 0 and not each.expanding] == [first, Islands()]
    assert found[False][-1] == all_of_them
    assert choices(network, "ort", Cpu(127, bf16=True, amx=True)) == choices(network, "ort", Cpu(127, bf16=True))


def test_which_file_serves_both_engines() -> None:
    """It is fitted to bf16 too, as the one of OpenVINO's own form is."""
    both, of_one = Network(mobile("Relu")), Network(mobile())
    assert (serves_both(both), serves_both(of_one)) == (True, False)
    assert place(both, "ort", Islands()).bf16
    assert not place(of_one, "ort", Islands()).bf16
    assert place(of_one, "openvino", Islands()).bf16


def test_choices_differ() -> None:
    """What leaves the same is not tried twice: here the first five products are those around the hard-swish."""
    network = Network(mobile())
    assert choices(network, "ort", Cpu(127, bf16=True)) == [Islands(3), Islands(5)]
    assert left_by(network, Islands(5)) == left_by(network, Islands(3, expanding=True))
    write = Writer()
    block(write, write.active(write.conv("x", "stem", (8, 3, 3)), "Relu", "start"), "Relu", "one")
    without = Network(write.model({write.conv("one/sum", "last", (8, 8, 1)): 4}))
    assert choices(without, "ort", Cpu(127, bf16=True)) == [Islands(3), Islands(5)]


def widening(times: int, at: int, group: int = 1) -> Network:
    """Seven 1x1 products behind a stem that makes 12 channels of 1; the one at a place widens, the stem's being 0."""
    write = Writer()
    last = write.conv("x", "stem", (12, 1, 3))
    for number in range(1, 8):
        channels = 12 * times if number > at else 12
        outputs, groups = (channels * times, group) if number == at else (channels, 1)
        last = write.conv(last, f"p{number}", (outputs, channels // groups, 1), group=groups)
    return Network(write.model({last: 4}))


@pytest.mark.parametrize(
    ("times", "at", "gain_db", "first"),
    [
        (5, 3, 0.1, 3),
        (5, 3, 0.4, 5),
        (6, 3, 0.4, 3),
        (6, 3, 0.9, 3),
        (6, 3, 1.1, 5),
        (6, 4, 0.4, 3),
        (6, 2, 0.4, 5),  # both leave it
        (6, 5, 0.4, 5),  # neither does
    ],
)
def test_what_is_slower_must_be_better(times: int, at: int, gain_db: float, first: int) -> None:
    """By more where it leaves a sixfold expansion in float32 that the other does not."""
    found_db = {Islands(3): 17.0, Islands(2): 10.0, Islands(5): 17.0 + gain_db}
    assert first_worth_it(widening(times, at), found_db).first == first


def test_only_a_dense_expansion_is_dear() -> None:
    assert first_worth_it(widening(6, 3, group=12), {Islands(3): 17.0, Islands(5): 17.4}) == Islands(5)


@pytest.mark.parametrize("noise_db", [-math.inf, math.inf])
def test_among_equals_the_fastest(noise_db: float) -> None:
    assert first_worth_it(widening(6, 3), {Islands(3): noise_db, Islands(5): noise_db}) == Islands(3)
