"""``profile predict``: costs against figures counted by hand, and fits of latencies whose law and noise are known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from mbexport.analysis.cost_fit import predicted_s
from mbexport.analysis.features import block_channels, cost
from mbexport.analysis.machine import Machine, choose_machine
from mbexport.analysis.predict import LEAST_NETWORKS, groups, leave_one_out, predict_latency
from mbexport.errors import InputError
from mbexport.published import PUBLISHED
from mbexport.spec import ModelSpec
from tests.measured import HARDWARE, measurement, profile, replicate

if TYPE_CHECKING:
    from mbexport.profile import LatencyProfile, Measurement
    from mbexport.spec import Precision

SMALL = ModelSpec(variant="small")
NETWORKS = [
    *(ModelSpec(variant="v2", alpha=alpha) for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    *(ModelSpec(variant="v2", height=side, width=side) for side in (96, 128, 160, 192)),
    *(ModelSpec(variant="large", height=side, width=side) for side in (96, 160, 224)),
    *(ModelSpec(variant="small", alpha=alpha) for alpha in (0.5, 0.75, 1.0)),
    *(ModelSpec(variant=variant, minimalistic=True) for variant in ("large", "small")),
    *(ModelSpec(variant="large", alpha=0.75), ModelSpec(variant="v2", alpha=0.5, height=160, width=160)),
]
UNSEEN = ModelSpec(variant="large", alpha=0.75, height=192, width=192)
BLOCK = block_channels(HARDWARE.instruction_sets)


# Howard et al., "Searching for MobileNetV3", table 2: expansion size, kernel, side of the output, squeeze-excite
_SMALL_TABLE = (
    *((16, 3, 56, True), (72, 3, 28, False), (88, 3, 28, False), (96, 5, 14, True), (240, 5, 14, True)),
    *((240, 5, 14, True), (120, 5, 14, True), (144, 5, 14, True), (288, 5, 7, True), (576, 5, 7, True)),
    (576, 5, 7, True),
)


def test_v3_small_against_the_table_of_its_paper() -> None:
    found = cost(SMALL)
    assert found.first_macs == 3 * 3 * 3 * 16 * 112 * 112
    assert found.depthwise_macs == sum(size * kernel**2 * side**2 for size, kernel, side, _ in _SMALL_TABLE)
    assert found.gated_bytes == 4 * sum(size * side**2 for size, _, side, gated in _SMALL_TABLE if gated)
    # a first convolution, then expand (not in the first block), depthwise and project, then the last 1x1 convolution
    assert found.layers == 1 + 2 + 10 * 3 + 1
    assert found.pooled_layers == 2 * 9 + 2


def test_whole_blocks_of_channels() -> None:
    """With 16 to a block, 72 channels count as 80, 88 as 96 and 120 as 128; the table's others are whole blocks."""
    whole = {72: 80, 88: 96, 120: 128}
    expected = sum(whole.get(size, size) * kernel**2 * side**2 for size, kernel, side, _ in _SMALL_TABLE)
    assert cost(SMALL, 16).depthwise_macs == expected
    assert cost(SMALL, 16).first_macs == cost(SMALL).first_macs
    assert cost(SMALL, 16).pointwise_macs > cost(SMALL).pointwise_macs


@pytest.mark.parametrize("entry", [entry for entry in PUBLISHED if entry.spec.variant == "v2"], ids=lambda e: e.name)
def test_v2_against_the_published_figures(entry: Any) -> None:
    """V2's only pooled layer is its classifier: 1280 inputs, wider above alpha 1, by 1000 classes."""
    found = cost(entry.spec)
    inputs = {1.3: 1664, 1.4: 1792}.get(entry.spec.alpha, 1280)
    macs = found.first_macs + found.pointwise_macs + found.depthwise_macs + inputs * 1000
    assert abs(macs / 1e6 - entry.macs_millions) < 1
    parameters = found.weight_bytes / 4 + 1000  # the classifier's biases; the published figures leave out batch norm
    assert abs(parameters / 1e6 - entry.parameters_millions) < 0.01


def test_feature_maps_of_a_network_counted_by_hand() -> None:
    """V2 without its top, 32x32, narrowest: all maps have 8 channels but the expanded ones (48) and the last (1280)."""
    found = cost(ModelSpec(variant="v2", alpha=0.01, height=32, width=32, include_top=False))
    read = 3 * 32**2
    first = 8 * 16**2
    block_0 = 2 * (8 + 8) * 16**2
    strides = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
    side, others = 16, 0
    for stride in strides:
        others += (8 + 48) * side**2  # expand
        others += 48 * side**2  # depthwise reads
        side //= stride
        others += 48 * side**2 + (48 + 8) * side**2  # depthwise writes, project
    assert side == 1
    assert found.activation_bytes == 4 * (read + first + block_0 + others + 8 + 1280)


def test_weights_count_again_beyond_each_cache() -> None:
    ten_million = msgspec.structs.replace(cost(SMALL), weight_bytes=10_000_000)
    assert ten_million.terms[-4:] == (10e6, 6e6, 2e6, 0.0)


def test_block_is_the_widest_vector() -> None:
    assert [block_channels(sets) for sets in (["avx", "avx2", "avx512f"], ["avx", "avx2"], ["asimd"])] == [16, 8, 4]


def law_s(spec: ModelSpec) -> float:
    """A machine's law: 5 us a layer, 30 and 10 GMAC/s, 20 GB/s for maps, 10 GB/s for weights beyond 8 MB."""
    done = cost(spec, BLOCK)
    times_s = (
        *(5e-6 * done.layers, done.pointwise_macs / 30e9, (done.first_macs + done.depthwise_macs) / 10e9),
        *((done.activation_bytes + done.gated_bytes) / 20e9, max(0, done.weight_bytes - 8e6) / 10e9),
    )
    return sum(times_s)


def row(median_s: float, **changes: Any) -> Measurement:
    return measurement(replicates=[replicate([round(median_s * 1e9)] * 5)] * 2, **changes)


def of(spec: ModelSpec | None, *rows: Measurement, name: str | None = None) -> LatencyProfile:
    return profile(*rows, spec=spec, artifact=name or (spec.slug if spec else "own"))


def machine(*profiles: LatencyProfile) -> Machine:
    return choose_machine({Path(f"here/{index}.json"): each for index, each in enumerate(profiles)}, None, HARDWARE)


def lawful(*more: LatencyProfile) -> Machine:
    return machine(*(of(spec, row(law_s(spec))) for spec in NETWORKS), *more)


def test_known_law_is_found_again() -> None:
    [predicted] = predict_latency(UNSEEN, lawful()).rows
    assert predicted.predicted_p50_s == pytest.approx(law_s(UNSEEN), rel=1e-3)  # samples are whole nanoseconds
    low_s, high_s = predicted.predicted_interval_s
    assert low_s == pytest.approx(high_s, rel=0.01)
    assert (predicted.networks, predicted.extrapolation, predicted.measured) == (len(NETWORKS), [], None)
    assert predicted.loo_median_error < 1e-3
    [group] = groups(lawful().cells)
    for left in leave_one_out(group, BLOCK):
        assert left.predicted_s == pytest.approx(left.measured_s, rel=0.02)


def noisy_matrix(rng: np.random.Generator, sigma: float) -> tuple[Any, Any]:
    terms = np.array([cost(spec, BLOCK).terms for spec in NETWORKS])
    medians_s = np.array([law_s(spec) for spec in NETWORKS])
    return terms, medians_s * np.exp(sigma * rng.standard_normal(len(NETWORKS)))


def test_interval_holds_a_measurement_that_it_never_saw_nine_times_of_ten() -> None:
    """150 machines with 4% of noise on every network, the new one's own included."""
    rng, sigma, held, errors = np.random.default_rng(0), 0.04, 0, []
    wanted = np.array(cost(UNSEEN, BLOCK).terms)
    for _ in range(150):
        centre_s, factor = predicted_s(*noisy_matrix(rng, sigma), wanted)
        truth_s = law_s(UNSEEN) * np.exp(sigma * rng.standard_normal())
        held += centre_s / factor <= truth_s <= centre_s * factor
        errors.append(abs(centre_s / law_s(UNSEEN) - 1))
    assert 0.85 <= held / 150 <= 0.97
    assert np.median(errors) < sigma  # the fit averages over networks


def test_left_out_networks_are_held_nine_times_of_ten() -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(12):
        _, medians_s = noisy_matrix(rng, 0.04)
        noisy = machine(*(of(spec, row(each_s)) for spec, each_s in zip(NETWORKS, medians_s, strict=True)))
        [group] = groups(noisy.cells)
        held += [left.held for left in leave_one_out(group, BLOCK)]
    assert 0.85 <= np.mean(held) <= 0.95


def test_left_out_network_does_not_see_its_own_measurement() -> None:
    odd = NETWORKS.index(ModelSpec(variant="large"))
    times_s = [law_s(spec) * (3 if index == odd else 1) for index, spec in enumerate(NETWORKS)]
    [group] = groups(machine(*(of(spec, row(each)) for spec, each in zip(NETWORKS, times_s, strict=True))).cells)
    left = leave_one_out(group, BLOCK)[odd]
    assert left.error == pytest.approx(2 / 3, rel=0.01)
    assert not left.held


def test_more_noise_makes_the_interval_wider() -> None:
    rng = np.random.default_rng(2)
    wanted = np.array(cost(UNSEEN, BLOCK).terms)
    (_, quiet), (_, loud) = (predicted_s(*noisy_matrix(rng, sigma), wanted) for sigma in (0.01, 0.2))
    assert quiet < 1.05
    assert loud > np.exp(0.2)


def test_settings_and_precisions_are_fitted_apart() -> None:
    """Two threads are twice as fast here, bf16 three times; other batches, scenarios and invalid rows do not count."""
    profiles = [
        of(
            *(spec, row(law_s(spec)), row(law_s(spec) / 2, threads=2)),
            row(law_s(spec) / 3, mode="production", precision="bf16"),
            *(row(law_s(spec) * 9, batch=4), row(law_s(spec) * 9, scenario="concurrent", concurrency=2)),
            row(law_s(spec) * 9, runtime="openvino:cpu", verdict="invalid"),
        )
        for spec in NETWORKS
    ]
    answer = predict_latency(UNSEEN, machine(*profiles, of(None, row(1.0))))
    ratios = {
        (each.runtime, each.mode, each.precision, each.threads): each.predicted_p50_s / law_s(UNSEEN)
        for each in answer.rows
    }
    assert ratios == {
        ("ort:cpu", "parity", "f32", 1): pytest.approx(1, rel=1e-3),
        ("ort:cpu", "parity", "f32", 2): pytest.approx(1 / 2, rel=1e-3),
        ("ort:cpu", "production", "bf16", 1): pytest.approx(1 / 3, rel=1e-3),
    }
    assert (answer.kind, answer.network, answer.refused) == ("predicted, not measured", UNSEEN.slug, [])
    [one] = predict_latency(UNSEEN, machine(*profiles), mode="parity", threads=2).rows
    assert (one.mode, one.threads) == ("parity", 2)


def test_measured_network_is_shown_and_left_out_of_the_fit() -> None:
    """Its measurement is three times what the law says: the prediction keeps to the law."""
    strange = of(UNSEEN, row(3 * law_s(UNSEEN)))
    [found] = predict_latency(UNSEEN, lawful(strange)).rows
    assert found.networks == len(NETWORKS)
    assert found.predicted_p50_s == pytest.approx(law_s(UNSEEN), rel=1e-3)
    assert found.measured is not None
    assert found.measured.p50_s == pytest.approx(3 * law_s(UNSEEN), rel=1e-3)
    assert found.measured.profile == f"here/{len(NETWORKS)}.json"


def test_same_network_under_two_names_counts_once() -> None:
    twin = msgspec.structs.replace(NETWORKS[0], classifier_activation="none")
    [found] = predict_latency(UNSEEN, lawful(of(twin, row(1.0), name="logits"))).rows
    assert found.networks == len(NETWORKS)


def test_too_few_networks() -> None:
    few = machine(*(of(spec, row(law_s(spec))) for spec in NETWORKS[: LEAST_NETWORKS - 1]))
    with pytest.raises(
        InputError, match=r"ort:cpu parity f32, threads 1: 9 networks were measured; a prediction needs 10.*bench"
    ):
        predict_latency(UNSEEN, few)
    enough = [of(spec, row(law_s(spec))) for spec in NETWORKS[:LEAST_NETWORKS]]
    mixed = machine(*enough, *(of(spec, row(law_s(spec), threads=2)) for spec in NETWORKS[:4]))
    answer = predict_latency(UNSEEN, mixed)
    assert [each.threads for each in answer.rows] == [1]
    assert [(each.threads, each.reason[:10]) for each in answer.refused] == [(2, "4 networks")]
    with pytest.raises(InputError, match="9 networks were measured besides it"):
        predict_latency(NETWORKS[0], machine(*enough))


def test_each_precision_has_a_fit_of_its_own() -> None:
    """int8 four times as fast: neither fit may see the other's rows."""
    int8 = [
        msgspec.structs.replace(
            of(spec, row(law_s(spec) / 4, precision="int8"), name=f"{spec.slug}_int8"), precision="int8"
        )
        for spec in NETWORKS
    ]
    found = {each.precision: each.predicted_p50_s for each in predict_latency(UNSEEN, lawful(*int8)).rows}
    assert found == pytest.approx({"f32": law_s(UNSEEN), "int8": law_s(UNSEEN) / 4}, rel=1e-3)
    few = lawful(*int8[: LEAST_NETWORKS - 1])
    assert [each.precision for each in predict_latency(UNSEEN, few).refused] == ["int8"]
    with pytest.raises(InputError, match="ort:cpu parity int8, threads 1: 9 networks were measured"):
        predict_latency(UNSEEN, few, precisions=["int8"])


@pytest.mark.parametrize("file", ["f16", "int8"])
def test_narrower_files_that_an_engine_widens_are_in_no_fit(file: Precision) -> None:
    wide = [
        msgspec.structs.replace(of(spec, row(9.0), name=f"{spec.slug}_{file}"), precision=file) for spec in NETWORKS
    ]
    [found] = predict_latency(UNSEEN, lawful(*wide)).rows
    assert found.predicted_p50_s == pytest.approx(law_s(UNSEEN), rel=1e-3)
    with pytest.raises(InputError, match="no row is valid, of a known network, in its file's precision"):
        predict_latency(UNSEEN, machine(*wide))


def test_rows_with_options_of_their_own_are_in_no_fit() -> None:
    other = [of(spec, row(9.0, asked_options={"NUM_STREAMS": "2"}), name=f"{spec.slug}_2") for spec in NETWORKS]
    [found] = predict_latency(UNSEEN, lawful(*other)).rows
    assert found.networks == len(NETWORKS)
    assert found.predicted_p50_s == pytest.approx(law_s(UNSEEN), rel=1e-3)


def test_extrapolation_is_called_so() -> None:
    """Published, in M multiply-accumulates: V2 300, with alpha 1.4 582, 0.35 at 96 11 (cut off); V3 Small 0.75 44."""

    def told(spec: ModelSpec, known: Machine) -> str:
        [found] = predict_latency(spec, known).rows
        return "; ".join(found.extrapolation)

    middle = [spec for spec in NETWORKS if spec.alpha <= 1 and (spec.variant, spec.alpha) != ("small", 0.5)]
    known = machine(*(of(spec, row(law_s(spec))) for spec in middle))
    assert told(UNSEEN, known) == ""
    assert "M multiply-accumulates, 1.9 x the most measured" in told(ModelSpec(variant="v2", alpha=1.4), known)
    tiny = ModelSpec(variant="v2", alpha=0.35, height=96, width=96)
    assert re.search(r"M multiply-accumulates, 0\.2[5-8] x the least measured", told(tiny, known))
    plain = machine(*(of(spec, row(law_s(spec))) for spec in NETWORKS if not cost(spec).gated_bytes))
    assert told(UNSEEN, plain) == "it has squeeze-excite and no measured network has"
