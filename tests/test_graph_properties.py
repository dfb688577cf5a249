"""Every pass, alone and in sequence, on random graphs: it keeps each output or leaves the graph alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, event, given, settings

from mbexport import graph
from mbexport.graph.spell_out_hard_swish import SpellOutHardSwish
from tests import random_operators as operators
from tests import random_patterns as patterns
from tests.random_cases import cases
from tests.random_graphs import NATIVE_OPSETS, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.random_cases import Case, Motif

OWN: dict[str, tuple[Motif, ...]] = {
    "FoldConstants": (patterns.constant_expression, patterns.shape_arithmetic, operators.identity),
    "StaticReshape": (patterns.computed_reshape,),
    "SinkTransposes": (patterns.sandwich, patterns.sandwich, patterns.crossed, operators.transpose),
    "FoldPadding": (patterns.pad_conv,),
    "FuseHardSigmoid": (patterns.gate,),
    "FuseHardSwish": (patterns.swish,),
    "FoldAffine": (patterns.affine,),
    "FoldHardSigmoid": (patterns.gated_conv,),
    "FoldScale": (patterns.scaled,),
    "GlobalPool": (patterns.global_pool,),
    "ClassifierGemm": (patterns.classifier,),
    "SpellOutHardSwish": (patterns.swish,),
}
ONE_AT_A_TIME = {"FoldScale"}  # of several scales in a row it takes the last; converters write one
OPSETS = {"SpellOutHardSwish": range(13, 15)}  # it declines from 14 on
FEW, MANY = 40, 500
LEAST_MODIFIED = 0.1  # of many; among few, the first of which are Hypothesis's smallest, once will do

slow_and_fast = pytest.mark.parametrize(
    "slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["few", "many"]
)


def examples(check: Callable[[Case], bool], name: str, *, slow: bool) -> None:
    """Judge random graphs that suit the pass of this name, or any, and see to it that it often applies."""
    seen: Counter[bool] = Counter()

    @settings(
        max_examples=MANY if slow else FEW,
        derandomize=not slow,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(case=cases(OWN.get(name, patterns.ALL), patterns.ALL, OPSETS.get(name, NATIVE_OPSETS)))
    def holds(case: Case) -> None:
        modified = check(case)
        event(f"modified: {modified}")
        seen[modified] += 1

    holds()
    assert seen.total() >= (MANY if slow else FEW)
    least = LEAST_MODIFIED * MANY if slow else 1
    assert seen[True] >= least, f"{seen}: name motifs in OWN that the pass applies to"


def judge(graph_pass: ir.passes.InPlacePass, case: Case) -> bool:
    """Apply a pass to the case's model, assert all that a pass promises, and say whether it applied."""
    onnx.checker.check_model(case.proto, full_check=True)
    model = case.model()
    before = ir.to_proto(model)
    modified = applied(graph_pass, model)
    after = ir.to_proto(model)
    assert (after != before) is modified
    assert_same_model(case, after)
    again = applied(graph_pass, model)
    may_apply_again = case.has_dead_nodes or type(graph_pass).__name__ in ONE_AT_A_TIME
    assert may_apply_again or not again, f"applies again: {onnx.printer.to_text(after)}"
    return modified


def applied(graph_pass: ir.passes.InPlacePass, model: ir.Model) -> bool:
    """Whether the pass modified the model; to refuse it beforehand is one way to leave it alone."""
    try:
        return graph_pass(model).modified
    except ir.passes.PreconditionError as error:
        event(f"refused: {error}"[:40])
        return False


def assert_same_model(case: Case, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    assert interface(after) == interface(case.proto)
    for feed in case.feeds:
        expected, got = evaluate(case.proto, feed), evaluate(after, feed)
        for name, array in expected.items():
            assert_equal_to_rounding(name, got[name], array)


def interface(proto: onnx.ModelProto) -> Any:
    """Names and types of inputs and outputs, and the inputs that may be left out."""
    inputs = [(value.name, value.type.tensor_type.elem_type) for value in proto.graph.input]
    outputs = [(value.name, value.type.tensor_type.elem_type) for value in proto.graph.output]
    optional = {name for name, _ in inputs} & {value.name for value in proto.graph.initializer}
    return inputs, outputs, optional


def assert_equal_to_rounding(name: str, got: NDArray[Any], expected: NDArray[Any]) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max(initial=1.0))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5 * scale, equal_nan=True, err_msg=name)


@slow_and_fast
@pytest.mark.parametrize("kind", [*graph.PASSES, SpellOutHardSwish], ids=lambda kind: kind.__name__)
def test_pass_keeps_every_output_or_leaves_the_graph_alone(kind: type[ir.passes.InPlacePass], slow: bool) -> None:
    examples(lambda case: judge(kind(), case), kind.__name__, slow=slow)


@slow_and_fast
def test_all_passes_in_sequence_keep_every_output(slow: bool) -> None:
    """Counted as modified where at least two passes apply, besides NameNodes, which always does."""

    def holds(case: Case) -> bool:
        model = case.model()
        modified = [applied(kind(), model) for kind in graph.PASSES]
        assert_same_model(case, ir.to_proto(model))
        return sum(modified) > 2

    examples(holds, "all", slow=slow)
