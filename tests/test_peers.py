"""The arithmetic, the order, the verdicts and the page of benchmarks/peers.py."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from mbexport.profile import Hardware
from peer_bench import bars, measure
from peer_bench.answers import logits_of
from peer_bench.cells import CANDIDATES, CELLS, Cell, candidates_of
from peer_bench.prepare import PACKAGES, last_line, prepare
from peer_bench.ratios import Group, Ratio, group_of, paired_ratio
from peer_bench.records import CellPlan, ModelFile, Plan, Refused, Round, Timed
from peer_bench.report import page
from peer_bench.timm_file import torch_input, torch_state, torch_tensor

if TYPE_CHECKING:
    from pathlib import Path

LARGE = next(cell for cell in CELLS if cell.slug == "mobilenet_v3_large_1.0_224")
V2 = next(cell for cell in CELLS if cell.spec.variant == "v2")
FILE = ModelFile(
    path="a.onnx", sha256="0", input_name="x", answers="logits", feeds="feeds.npz", nodes=126, transposes=1
)
HARDWARE = Hardware(architecture="x86_64", cpu="Some CPU", physical_cores=2, logical_cores=2, memory_bytes=2**30)


def timed(*milliseconds: float, others_share: float = 0.0) -> Timed:
    return Timed(
        samples_ns=[round(value * 1e6) for value in milliseconds],
        warmup_runs=20,
        warmup_settled=True,
        sqnr_db=100.0,
        steal_share=None,
        others_share=others_share,
    )


def turn(replicate: int, runs: dict[str, Timed | Refused], cell: Cell = LARGE, threads: int = 1) -> Round:
    return Round(setup="s", cell=cell.slug, threads=threads, replicate=replicate, measured_on="2026-01-02", runs=runs)


def group(p50s_ms: dict[str, float], cell: Cell = LARGE, rounds: int = 6) -> Group:
    """Every round the same."""
    runs: dict[str, Timed | Refused] = {key: timed(value) for key, value in p50s_ms.items()}
    return group_of(cell, 1, [turn(index, runs, cell) for index in range(rounds)], {})


def plan(cells: dict[str, CellPlan], **changes: object) -> Plan:
    made = Plan(cells=cells, threads=[1, 2], replicates=3, min_time_s=0.5, hardware=HARDWARE, versions={"numpy": "2"})
    return msgspec.structs.replace(made, **changes)


def test_ratio_is_paired_within_rounds() -> None:
    """A machine twice as slow in some rounds changes nothing."""
    ours, slowdown = [1.0, 1.1, 0.9, 1.0, 1.05, 1.0], [1, 2, 1, 2, 2, 1]
    ratio = paired_ratio(
        [2 * value * slow for value, slow in zip(ours, slowdown, strict=True)],
        [value * slow for value, slow in zip(ours, slowdown, strict=True)],
    )
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_interval_is_the_whole_range_below_six_rounds_and_trims_an_outlier_in_twelve() -> None:
    assert paired_ratio([3, 1, 2, 5, 4], [1] * 5) == Ratio(3, 1, 5)
    many = paired_ratio([1000.0, *range(1, 12)], [1] * 12)
    assert 1 <= many.low < many.median < many.high < 1000


def test_pairing_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1, 2], [1])


def test_group_pools_samples_and_keeps_round_medians() -> None:
    rounds = [turn(0, {"ort/mbexport": timed(1, 2, 3)}), turn(1, {"ort/mbexport": timed(5, 6, 100, others_share=0.5)})]
    found = group_of(LARGE, 1, rounds, {"ort/timm": "torch not installed"})
    assert found.medians_s["ort/mbexport"] == pytest.approx([2e-3, 6e-3])
    assert found.p50_s["ort/mbexport"] == pytest.approx(4e-3)
    assert found.refused == {"ort/timm": "not measured: torch not installed"}
    assert found.others_share == pytest.approx(0.25)


def test_a_candidate_that_was_wrong_once_has_no_figures() -> None:
    wrong = Refused(reason="SQNR 12.0 dB", wrong=True)
    rounds = [turn(0, {"ort/timm": timed(1)}), turn(1, {"ort/timm": wrong})]
    found = group_of(LARGE, 1, rounds, {})
    assert found.refused == {"ort/timm": "wrong: SQNR 12.0 dB"}
    assert not found.medians_s
    assert found.ratio("ort/timm", "ort/timm") is None


@pytest.mark.parametrize(
    ("ratio", "below", "above"),
    [
        (Ratio(0.99, 0.97, 1.02), "met", "met within noise"),
        (Ratio(1.01, 0.99, 1.03), "met within noise", "met"),
        (Ratio(1.02, 1.01, 1.03), "missed", "met"),
        (Ratio(0.9, 0.8, 0.95), "met", "missed"),
        (Ratio(1.0, 1.0, 1.0), "met", "met"),
    ],
)
def test_verdicts_at_a_bar_of_one(ratio: Ratio, below: str, above: str) -> None:
    assert bars.at_most(ratio, 1.0) == below
    assert bars.at_least(ratio, 1.0) == above


def test_best_peer_is_the_fastest_on_the_same_runtime() -> None:
    figures = {
        "ort/mbexport": 3.0, "ort/keras_onnx": 4.0, "ort/timm": 2.5, "ort/onnxslim": 3.5,
        "openvino/mbexport": 2.0, "openvino/saved_model": 2.5, "openvino/timm": 4.0, "litert/litert": 1.0,
    }  # fmt: skip
    on_ort, on_openvino = bars.best_peer([group(figures)])
    assert (on_ort.runtime, on_ort.against, on_ort.verdict) == ("ONNX Runtime", "timm, torch export", "missed")
    assert on_ort.ratio is not None
    assert on_ort.ratio.median == pytest.approx(3.0 / 2.5)
    assert (on_openvino.against, on_openvino.verdict) == ("OpenVINO from SavedModel", "met")


def test_litert_is_held_against_the_better_runtime() -> None:
    (slow,) = bars.litert([group({"ort/mbexport": 3.0, "openvino/mbexport": 2.2, "litert/litert": 2.0})])
    assert (slow.runtime, slow.verdict) == ("OpenVINO", "missed")
    (close,) = bars.litert([group({"ort/mbexport": 2.09, "openvino/mbexport": 2.2, "litert/litert": 2.0})])
    assert (close.runtime, close.verdict) == ("ONNX Runtime", "met")
    (absent,) = bars.litert([group({"ort/mbexport": 2.0})])
    assert (absent.ratio, absent.verdict) == (None, None)


def test_keras_bar_differs_by_runtime_and_is_for_networks_with_gates() -> None:
    figures = {
        "ort/mbexport": 1.0, "openvino/mbexport": 1.0, "ort/keras_onnx": 1.3, "openvino/keras_onnx": 1.3,
        "ort/keras_fresh": 1.1, "openvino/keras_fresh": 3.0,
    }  # fmt: skip
    verdicts = {(row.runtime, row.against): row.verdict for row in bars.keras_export([group(figures)])}
    assert verdicts == {
        ("OpenVINO", "trained-like weights"): "missed",
        ("OpenVINO", "a zero bias"): "met",
        ("ONNX Runtime", "trained-like weights"): "met",
        ("ONNX Runtime", "a zero bias"): "missed",
    }
    assert list(bars.keras_export([group(figures, V2)])) == []


def test_every_round_has_every_candidate_once_in_its_own_order() -> None:
    keys = [candidate.key for candidate in CANDIDATES]
    assert len(set(keys)) == len(keys)
    orders = [measure.shuffled(keys, (replicate, "cell", threads)) for replicate in range(4) for threads in (1, 2)]
    assert all(Counter(order) == Counter(keys) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert measure.shuffled(keys, (0, "cell", 1)) == orders[0]


def test_all_networks_take_a_turn_before_any_takes_the_next() -> None:
    found = list(measure.turns(plan({"a": CellPlan(files={}, missing={}), "b": CellPlan(files={}, missing={})})))
    assert [replicate for replicate, _, _ in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert {(slug, threads) for _, slug, threads in found[:4]} == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}


def test_round_is_read_back_until_anything_that_it_depends_on_changes(tmp_path: Path) -> None:
    before = plan({"a": CellPlan(files={"ort/mbexport": FILE}, missing={})})
    path = measure.round_path(tmp_path, (0, "a", 1))
    path.parent.mkdir()
    done = msgspec.structs.replace(turn(0, {"ort/mbexport": timed(1)}), setup=before.setup("a"), cell="a")
    path.write_bytes(msgspec.json.encode(done))
    assert measure.read_round(tmp_path, before, (0, "a", 1)) == done
    assert measure.read_round(tmp_path, before, (1, "a", 1)) is None
    changed = msgspec.structs.replace(FILE, sha256="1")
    for after in (
        plan({"a": CellPlan(files={"ort/mbexport": changed}, missing={})}),
        plan(before.cells, min_time_s=1.0),
        plan(before.cells, versions={"numpy": "3"}),
    ):
        assert measure.read_round(tmp_path, after, (0, "a", 1)) is None


def test_page_names_what_is_missing_or_wrong_and_ranks_the_rest() -> None:
    runs: dict[str, Timed | Refused] = {
        "ort/mbexport": timed(2.0),
        "ort/keras_onnx": timed(3.0),
        "ort/onnxslim": Refused(reason="SQNR 9.0 dB", wrong=True),
    }
    cell = CellPlan(files=dict.fromkeys(runs, FILE), missing={"ort/timm": "torch not installed"})
    found = group_of(LARGE, 1, [turn(index, runs) for index in range(3)], cell.missing)
    text = page(plan({LARGE.slug: cell}), [found], ["2026-01-02", "2026-01-03"], limit_db=80, min_samples=64)
    assert "Some CPU" in text
    assert "2026-01-02 to 2026-01-03" in text
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| ONNX Runtime")}
    assert "| 126 | 1 | 2.000 | 1 |" in rows["mbexport"]
    assert "3.000 | 1.500 [1.500, 1.500]" in rows["Keras export to ONNX"]
    assert "wrong: SQNR 9.0 dB" in rows["Keras export, onnxslim"]
    assert "not measured: torch not installed" in rows["timm, torch export"]
    assert f"| {LARGE.slug} | 1 | ONNX Runtime | Keras export to ONNX | 0.667 [0.667, 0.667] | met |" in text
    assert f"| {LARGE.slug} | 1 | OpenVINO | no peer measured | - | not measured |" in text


def test_tables_have_as_many_columns_in_every_row() -> None:
    cells = {cell.slug: CellPlan(files={}, missing={}) for cell in (LARGE, V2)}
    groups = [group_of(cell, threads, [], {}) for cell in (LARGE, V2) for threads in (1, 2)]
    text = page(plan(cells), groups, [], limit_db=80, min_samples=64)
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_zero_bias_variant_is_for_networks_with_gates_only() -> None:
    assert "ort/keras_fresh" in {candidate.key for candidate in candidates_of(LARGE)}
    assert "ort/keras_fresh" not in {candidate.key for candidate in candidates_of(V2)}
    assert {candidate.step for candidate in CANDIDATES} == set(PACKAGES)


def test_step_without_its_package_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "timm", ("numpy", "no-such-package"))
    assert prepare(tmp_path, LARGE.slug, "timm") == "no-such-package not installed"
    assert last_line("Traceback\n  File x\nValueError: why\n") == "ValueError: why"


def test_torch_tensor_moves_every_kind_of_kernel() -> None:
    rng = np.random.default_rng(0)
    full = rng.random((3, 5, 2, 7), np.float32)
    assert torch_tensor(full, (7, 2, 3, 5))[6, 1, 2, 4] == full[2, 4, 1, 6]
    depthwise = rng.random((3, 5, 2, 1), np.float32)
    assert torch_tensor(depthwise, (2, 1, 3, 5))[1, 0, 2, 4] == depthwise[2, 4, 1, 0]
    classifier = rng.random((1, 1, 4, 10), np.float32)
    assert torch_tensor(classifier, (10, 4))[9, 3] == classifier[0, 0, 3, 9]
    with pytest.raises(ValueError, match="expected a tensor"):
        torch_tensor(full, (7, 2, 5, 3))
    with pytest.raises(ValueError, match="zip"):
        torch_state([full], {"a": (7, 2, 3, 5), "b": (1,)})


def test_torch_input_is_rescaled_and_channels_first() -> None:
    shown = np.zeros((1, 2, 2, 3), np.float32)
    shown[0, 1, 0] = (0, 127.5, 255)
    assert torch_input(shown, rescaled=False)[0, :, 1, 0].tolist() == [-1, 0, 1]
    assert torch_input(shown / np.float32(255), rescaled=True)[0, :, 1, 0].tolist() == [0, 0.5, 1]


def test_logits_come_back_from_probabilities_without_their_offset() -> None:
    logits = np.array([[1.0, 2.0, 6.0]])
    probabilities = np.exp(logits) / np.exp(logits).sum()
    expected = [[-2.0, -1.0, 3.0]]
    np.testing.assert_allclose(logits_of(probabilities, "probabilities"), expected, atol=1e-12)
    np.testing.assert_allclose(logits_of(logits, "logits"), expected, atol=1e-12)
