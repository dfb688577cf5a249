"""Which network fits a budget. Published top-1: V3 Large 75.6 %, Large 0.75 73.3 %, V2 71.8 %, V3 Small 68.1 %."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mbexport.analysis.accuracies import Evaluation, RuntimeTop1, read_evaluations
from mbexport.analysis.machine import Machine, Precision, choose_machine
from mbexport.analysis.recommend import Question, Recommendation, Settings, recommend
from mbexport.errors import DocumentError, InputError
from mbexport.published import PUBLISHED
from mbexport.spec import ModelSpec
from mbexport_cli.render.recommend import recommended
from tests.measured import HARDWARE, measurement, profile, replicate

if TYPE_CHECKING:
    from mbexport.profile import Hardware, LatencyProfile, Measurement

LARGE, LARGE_075, V2, SMALL = (
    *(ModelSpec(variant="large"), ModelSpec(variant="large", alpha=0.75)),
    *(ModelSpec(variant="v2"), ModelSpec(variant="small")),
)
REPORT = '{"artifact": "a", "artifact_sha256": "aa", "input_size": null, "images": 9, "rows": [%s]}'
OTHER = msgspec.structs.replace(HARDWARE, cpu="Other")


def row(*process_ms: float, samples: int = 400, **changes: Any) -> Measurement:
    """Two processes or more, each with ``samples`` samples of one duration: all percentiles are alike."""
    processes = process_ms if len(process_ms) > 1 else process_ms * 2
    return measurement(replicates=[replicate([round(each * 1e6)] * samples) for each in processes], **changes)


def of(spec: ModelSpec | None, *rows: Measurement, name: str | None = None, **changes: Any) -> LatencyProfile:
    return profile(*rows, spec=spec, artifact=name or (spec.slug if spec else "own"), **changes)


def machine(*profiles: LatencyProfile) -> Machine:
    return choose_machine({Path(f"here/{each.artifact}.json"): each for each in profiles}, None, HARDWARE)


def ask(*profiles: LatencyProfile, budget_ms: float = 5.0, **settings: Any) -> Recommendation:
    least, percentile = settings.pop("min_top1", None), settings.pop("percentile", "p99")
    question = Question(budget_s=budget_ms / 1e3, percentile=percentile, min_top1=least)
    evaluations = {Path(f"{each.artifact}-accuracy.json"): each for each in settings.pop("evaluations", [])}
    return recommend(machine(*profiles), question, Settings(**settings), evaluations)


def evaluation(of_profile: LatencyProfile, **runtimes: float) -> Evaluation:
    """Top-1 by engine, on its CPU, from 200 images; each interval is 5% to either side."""
    rows = [
        RuntimeTop1(runtime=f"{engine}:cpu", top1=top1, top1_ci=(top1 - 0.05, top1 + 0.05))
        for engine, top1 in runtimes.items()
    ]
    return Evaluation(
        artifact=of_profile.artifact,
        artifact_sha256=of_profile.artifact_sha256,
        input_size=None,
        images=200,
        rows=rows,
    )


FOUR = (of(SMALL, row(1.0)), of(LARGE, row(6.0)), of(V2, row(5.0)), of(LARGE_075, row(4.0)))


def names(rows: list[Any]) -> list[str]:
    return [each.artifact for each in rows]


def test_most_accurate_that_fits_with_runners_up_and_what_is_over() -> None:
    answer = ask(*FOUR)
    assert answer.best is not None
    best = answer.best
    assert (best.artifact, best.top1, best.latency_s) == (LARGE_075.slug, 0.733, 0.004)
    assert (best.fits, best.surely, best.verdict, best.profile) == (True, True, "ok", f"here/{LARGE_075.slug}.json")
    assert best.ci_s == pytest.approx((0.004, 0.004))
    assert best.top1_source is not None
    assert best.top1_source.startswith("Keras")
    assert names(answer.runners_up) == [V2.slug, SMALL.slug]  # exactly on the budget is within it
    assert names(answer.over_budget) == [LARGE.slug]
    assert (answer.over_budget[0].fits, answer.over_budget[0].latency_s) == (False, 0.006)


def test_only_what_is_more_accurate_is_over_budget_the_nearest_first() -> None:
    answer = ask(of(SMALL, row(9.0)), of(V2, row(3.0)), of(LARGE_075, row(8.0)), of(LARGE, row(7.0)))
    assert answer.best is not None
    assert answer.best.artifact == V2.slug
    assert names(answer.over_budget) == [LARGE.slug, LARGE_075.slug]


def test_nothing_fits() -> None:
    answer = ask(*FOUR, budget_ms=0.5)
    assert answer.best is None
    assert names(answer.over_budget) == [SMALL.slug, LARGE_075.slug, V2.slug, LARGE.slug]


def test_least_accuracy() -> None:
    answer = ask(*FOUR, budget_ms=2.0, min_top1=0.72)
    assert answer.best is None
    assert names(answer.over_budget) == [LARGE_075.slug, LARGE.slug]
    assert names(answer.less_accurate) == [SMALL.slug]
    assert ask(*FOUR, min_top1=0.733).best is not None


def test_equal_accuracy_goes_to_the_faster() -> None:
    """V2 0.35 at 224 and V2 1.0 at 96 are both published with 60.3 %."""
    wide, narrow = ModelSpec(variant="v2", height=96, width=96), ModelSpec(variant="v2", alpha=0.35)
    for wide_ms, narrow_ms, expected in ((2.0, 1.0, narrow), (1.0, 2.0, wide)):
        answer = ask(of(wide, row(wide_ms)), of(narrow, row(narrow_ms)))
        assert answer.best is not None
        assert answer.best.artifact == expected.slug
        assert len(answer.runners_up) == 1


def test_fastest_settings_stand_for_a_network_unless_settings_are_asked_for() -> None:
    both = of(
        *(LARGE, row(6.0), row(3.0, mode="production", precision="bf16"), row(4.0, threads=2)),
        row(2.0, batch=8),
        row(1.0, scenario="offline"),
    )
    best = ask(both).best
    assert best is not None
    assert (best.mode, best.precision, best.threads, best.latency_s) == ("production", "bf16", 1, 0.003)
    parity = ask(both, mode="parity").best
    assert parity is not None
    assert parity.threads == 2
    assert parity.latency_s == pytest.approx(0.004)
    assert ask(both, mode="parity", threads=1).best is None
    eight = ask(both, batch=8).best
    assert eight is not None
    assert eight.latency_s == pytest.approx(0.002)


def test_percentiles_are_not_mixed_up() -> None:
    """Of 1000 calls in each process 960 take 1 ms and 40 take 9 ms: only p99 is slow."""
    calls = replicate([1_000_000] * 960 + [9_000_000] * 40)
    one = of(SMALL, measurement(replicates=[calls, calls]))
    for percentile, expected_s in (("p50", 0.001), ("p90", 0.001), ("p99", 0.009)):
        answer = ask(one, percentile=percentile)
        found = answer.best or answer.over_budget[0]
        assert found.latency_s == pytest.approx(expected_s)
        assert found.ci_s == pytest.approx((expected_s, expected_s))
        assert (answer.best is None) == (percentile == "p99")


def test_too_few_samples_and_invalid_rows_cannot_answer() -> None:
    few, invalid = row(1.0, samples=300), row(1.0, threads=2, verdict="invalid", reasons=["ran bf16"])
    answer = ask(of(LARGE, few, invalid), of(SMALL, row(2.0)))
    assert answer.best is not None
    assert answer.best.artifact == SMALL.slug
    assert answer.over_budget == []
    reasons = {each.threads: each.reason for each in answer.unanswered}
    assert reasons == {1: "600 samples; p99 needs 662", 2: "invalid; ran bf16"}
    assert LARGE.slug not in names(answer.not_measured)
    enough = ask(of(LARGE, few, invalid), percentile="p50").best
    assert enough is not None
    assert enough.threads == 1


def test_noise_and_doubt_are_told() -> None:
    """The processes' medians lie on both sides of the budget: so does the interval of what is drawn from them."""
    answer = ask(of(LARGE, row(4.0, 4.8, 5.4, verdict="noisy")), percentile="p50")
    assert answer.best is not None
    assert answer.best.ci_s is not None
    assert answer.best.ci_s[0] < 0.005 < answer.best.ci_s[1]
    assert (answer.best.fits, answer.best.surely, answer.best.verdict) == (True, False, "noisy")
    over = ask(of(LARGE, row(4.0, 5.2, 5.4)), percentile="p50").over_budget[0]
    assert (over.fits, over.surely) == (False, False)
    sure = ask(of(LARGE, row(5.2, 5.4)), percentile="p50").over_budget[0]
    assert (sure.fits, sure.surely) == (False, True)


def test_one_process_has_no_interval() -> None:
    alone = measurement(replicates=[replicate([1_000_000] * 700)])
    best = ask(of(LARGE, alone)).best
    assert best is not None
    assert (best.ci_s, best.surely) == (None, None)


def test_networks_without_published_accuracy_never_win() -> None:
    odd = ModelSpec(variant="large", alpha=0.6)
    retrained = msgspec.structs.replace(LARGE, classes=10)
    answer = ask(of(odd, row(1.0)), of(retrained, row(2.0)), of(None, row(3.0)), of(SMALL, row(4.0)))
    assert answer.best is not None
    assert answer.best.artifact == SMALL.slug
    assert names(answer.unknown_accuracy) == [odd.slug, LARGE.slug, "own"]
    assert {each.top1 for each in answer.unknown_accuracy} == {None}


def test_what_was_not_measured() -> None:
    answer = ask(*FOUR)
    assert {entry.name for entry in PUBLISHED} - set(names(answer.not_measured)) == {
        *(LARGE.slug, LARGE_075.slug, V2.slug, SMALL.slug)
    }
    accuracies = [each.top1 for each in answer.not_measured]
    assert accuracies == sorted(accuracies, reverse=True)


def test_network_of_dynamic_size_counts_at_the_size_that_was_fed() -> None:
    dynamic = ModelSpec(variant="large", height=None, width=None)
    at_224 = ask(of(dynamic, row(1.0, input_size=(224, 224))))
    assert at_224.best is not None
    assert (at_224.best.artifact, at_224.best.top1) == (dynamic.slug, 0.756)
    assert LARGE.slug not in names(at_224.not_measured)
    assert ask(of(dynamic, row(1.0, input_size=(96, 96)))).best is None


@pytest.mark.parametrize("budget_s", [0.0, -1.0, math.nan, math.inf])
def test_budgets_that_are_none(budget_s: float) -> None:
    with pytest.raises(InputError, match="budget must be a finite time above 0 ms"):
        Question(budget_s=budget_s)


@pytest.mark.parametrize("share", [-0.1, 1.01, math.nan])
def test_accuracies_that_are_none(share: float) -> None:
    with pytest.raises(InputError, match="between 0 and 100 %"):
        Question(budget_s=1.0, min_top1=share)


def test_settings_that_were_not_measured() -> None:
    with pytest.raises(
        InputError, match=r"nothing was measured on amd-\S+ with ort:cuda, threads 3, batch 1; .* ort:cpu"
    ):
        ask(*FOUR, runtimes=["ort:cuda"], threads=3)


def pick(*places: tuple[str, Hardware], wanted: str | None = None) -> Machine:
    found = {Path(place): of(LARGE, row(1.0 + index), hardware=on) for index, (place, on) in enumerate(places)}
    return choose_machine(found, wanted, HARDWARE)


def test_this_machine_else_the_only_one_else_a_named_one() -> None:
    third = msgspec.structs.replace(HARDWARE, cpu="Third")
    ours, theirs, thirds = ("a/x", HARDWARE), ("b/x", OTHER), ("c/x", third)
    assert (pick(ours, theirs).hardware, pick(ours, theirs).here) == (HARDWARE, True)
    assert (pick(theirs).hardware, pick(theirs).here) == (OTHER, False)
    assert pick(ours, theirs, wanted=OTHER.slug).hardware == OTHER
    with pytest.raises(InputError, match=rf"choose another with --hardware: {OTHER.slug}, {third.slug}"):
        pick(theirs, thirds)
    with pytest.raises(InputError, match=f"no profiles of a machine called 'othe'; .*{OTHER.slug}"):
        pick(ours, theirs, wanted="othe")
    with pytest.raises(InputError, match="no profiles yet"):
        pick()


def test_two_machines_in_one_folder() -> None:
    bigger = msgspec.structs.replace(HARDWARE, memory_bytes=2 * HARDWARE.memory_bytes)
    assert bigger.slug == HARDWARE.slug
    with pytest.raises(InputError, match=r"a/x and a/y were measured on two machines with the same name"):
        pick(("a/x", HARDWARE), ("a/y", bigger))
    mine = pick(("mine/x", HARDWARE), ("shipped/x", bigger))
    assert [cell.path for cell in mine.cells] == [Path("mine/x")]
    theirs = pick(("shipped/x", bigger))
    assert (theirs.hardware, theirs.here) == (bigger, False)


def test_own_measurement_goes_before_a_shipped_one() -> None:
    found = pick(("mine/x", HARDWARE), ("shipped/x", HARDWARE))
    assert [cell.path for cell in found.cells] == [Path("mine/x")]


OWN = of(None, row(2.0), name="roses", artifact_sha256="bb")
"""A user's network, of which nothing is published."""


def test_a_users_own_network_wins_with_the_accuracy_that_was_measured() -> None:
    answer = ask(*FOUR, OWN, evaluations=[evaluation(OWN, ort=0.74)])
    best = answer.best
    assert best is not None
    assert (best.artifact, best.top1, best.top1_ci) == ("roses", 0.74, (0.69, 0.79))
    assert best.top1_source == "measured on 200 images, ort:cpu"
    assert answer.unknown_accuracy == []
    assert {(each.top1_ci, "measured" in (each.top1_source or "")) for each in answer.runners_up} == {(None, False)}


@pytest.mark.parametrize(("least", "fits"), [(0.6, True), (0.61, False)])
def test_least_accuracy_is_asked_of_the_measured_one_in_place_of_the_published(least: float, fits: bool) -> None:
    """V3 Large is published with 75.6 %."""
    large = of(LARGE, row(2.0))
    answer = ask(large, min_top1=least, evaluations=[evaluation(large, ort=0.6)])
    assert (answer.best is not None) == fits
    assert [each.top1 for each in answer.less_accurate] == ([] if fits else [0.6])


def test_a_row_takes_its_own_runtime_s_accuracy_else_the_first() -> None:
    """OpenVINO's rows are the faster ones, but less accurate: neither settings may hide the other."""
    both = of(None, row(4.0), row(2.0, runtime="openvino:cpu"), row(9.0, runtime="ort:cuda"), artifact_sha256="bb")
    told = evaluation(both, ort=0.9, openvino=0.5)

    def best(**settings: Any) -> tuple[str, float | None, str | None]:
        found = ask(both, budget_ms=10.0, evaluations=[told], **settings).best
        assert found is not None
        return found.runtime, found.top1, found.top1_source

    assert best() == ("ort:cpu", 0.9, "measured on 200 images, ort:cpu")
    assert best(runtimes=["openvino:cpu"]) == ("openvino:cpu", 0.5, "measured on 200 images, openvino:cpu")
    assert best(runtimes=["ort:cuda"]) == ("ort:cuda", 0.9, "measured on 200 images, ort:cpu")


def test_a_network_with_one_accuracy_is_named_once() -> None:
    both = of(None, row(4.0), row(2.0, runtime="openvino:cpu"), artifact_sha256="bb")
    answer = ask(both, evaluations=[evaluation(both, ort=0.9, openvino=0.9)])
    assert answer.best is not None
    assert (answer.best.runtime, answer.runners_up) == ("openvino:cpu", [])


def test_network_of_dynamic_size_has_the_accuracy_of_the_size_that_was_fed() -> None:
    dynamic = of(
        ModelSpec(variant="large", height=None, width=None),
        row(1.0, input_size=(96, 96)),
        row(2.0, input_size=(224, 224), threads=2),
    )
    told = msgspec.structs.replace(evaluation(dynamic, ort=0.8), input_size=(224, 224))
    answer = ask(dynamic, evaluations=[told])
    assert answer.best is not None
    assert (answer.best.latency_s, answer.best.top1) == (0.002, 0.8)
    assert [(each.latency_s, each.top1) for each in answer.unknown_accuracy] == [(0.001, None)]


def test_evaluations_that_no_row_could_use_are_refused() -> None:
    stranger = msgspec.structs.replace(evaluation(OWN, ort=0.9), artifact="tulips", artifact_sha256="c" * 64)
    with pytest.raises(InputError, match=r"tulips-accuracy.json is of tulips \(c{12}\.\.\.\), which was not measured"):
        ask(*FOUR, OWN, evaluations=[stranger])
    retrained = msgspec.structs.replace(evaluation(OWN, ort=0.9), artifact_sha256="dd")
    with pytest.raises(InputError, match=r"under that name is another file .*; measure this one with: mbexport bench"):
        ask(*FOUR, OWN, evaluations=[retrained])
    with pytest.raises(InputError, match="measured on amd-epyc-f25m17-2c with other settings only"):
        ask(of(LARGE, row(1.0, threads=2)), OWN, threads=2, evaluations=[evaluation(OWN, ort=0.9)])


def test_two_reports_of_one_artifact_are_refused_and_one_file_given_twice_is_not(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for path in (one, two):
        path.write_bytes(msgspec.json.encode(evaluation(OWN, ort=0.9)))
    assert read_evaluations([one, one]) == {one: evaluation(OWN, ort=0.9)}
    with pytest.raises(InputError, match=r"one.json and \S+two.json are both of roses \(.*\) in parity"):
        read_evaluations([one, two])
    production = msgspec.structs.replace(evaluation(OWN, ort=0.8), mode="production")
    two.write_bytes(msgspec.json.encode(production))
    assert read_evaluations([one, two]) == {one: evaluation(OWN, ort=0.9), two: production}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "labelled images: Expected `object`"),
        ('{"pictures": [], "failed": []}', "missing required field `artifact`"),
        (REPORT % '{"runtime": "ort:cpu", "top5": 0.9}', "missing required field `top1`"),
        (REPORT % '{"runtime": "ort:cpu", "top1": null, "top1_ci": null}', "Expected `float`, got `null`"),
        (REPORT % '{"runtime": "ort:cpu", "top1": 75.0, "top1_ci": [0.7, 0.8]}', "<= 1.0"),
        (REPORT % "", "length >= 1"),
    ],
)
def test_files_that_are_no_such_report(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DocumentError, match=words) as raised:
        read_evaluations([path])
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(DocumentError, match=r"absent\.json cannot be read"):
        read_evaluations([tmp_path / "absent.json"])


INT8 = of(LARGE, row(2.0, precision="int8"), name=f"{LARGE.slug}_int8", precision="int8", artifact_sha256="bb")
"""V3 Large's int8 sibling, whose spec is V3 Large's own."""


def test_published_top1_is_not_claimed_for_a_narrower_file() -> None:
    answer = ask(INT8, *FOUR, min_top1=0.7)
    assert answer.best is not None
    assert (answer.best.artifact, answer.best.top1_precision) == (LARGE_075.slug, "f32")
    assert [(each.artifact, each.precision, each.top1) for each in answer.unknown_accuracy] == [
        (INT8.artifact, "int8", None)
    ]
    assert LARGE.slug in names(ask(INT8).not_measured)


def test_a_narrower_file_ranks_with_the_accuracy_that_was_measured() -> None:
    told = evaluation(INT8, ort=0.75)
    told = msgspec.structs.replace(told, rows=[msgspec.structs.replace(told.rows[0], precision="int8")])
    best = ask(INT8, *FOUR, evaluations=[told]).best
    assert best is not None
    assert (best.artifact, best.top1, best.precision, best.top1_precision) == (INT8.artifact, 0.75, "int8", "int8")


@pytest.mark.parametrize("is_first", [False, True])
def test_bf16_of_a_float32_file_has_the_accuracy_that_was_counted_in_bf16(*, is_first: bool) -> None:
    own = of(
        None,
        row(4.0, runtime="openvino:cpu"),
        row(3.0, runtime="ort:cpu"),
        row(2.0, runtime="openvino:cpu", mode="production", precision="bf16"),
    )
    pinned = evaluation(own, openvino=0.8)
    bf16 = msgspec.structs.replace(evaluation(own, openvino=0.7).rows[0], precision="bf16")
    counted = msgspec.structs.replace(pinned, mode="production", rows=[bf16])
    order = [counted, pinned] if is_first else [pinned, counted]
    question = Question(budget_s=5e-3, percentile="p99", min_top1=None)
    told = {Path(f"{number}.json"): each for number, each in enumerate(order)}
    answers = {
        precision: recommend(machine(own), question, Settings(precisions=[precision]), told).best
        for precision in ("f32", "bf16")
    }
    assert {name: each and (each.top1, each.top1_precision) for name, each in answers.items()} == {
        "f32": (0.8, "f32"),
        "bf16": (0.7, "bf16"),
    }
    alone = evaluation(own, openvino=0.7)
    alone = msgspec.structs.replace(alone, mode="production", rows=[bf16])
    assert "ort:cpu" in {each.runtime for each in ask(own, evaluations=[alone]).unknown_accuracy}


def test_accuracy_of_a_narrower_file_holds_for_its_runtime_alone() -> None:
    told = evaluation(INT8, openvino=0.75)
    with pytest.raises(InputError, match="of its top-1 on another runtime"):
        ask(INT8, evaluations=[told])
    both = msgspec.structs.replace(INT8, measurements=[*INT8.measurements, row(3.0, runtime="openvino:cpu")])
    answer = ask(both, evaluations=[told])
    assert answer.best is not None
    assert answer.best.runtime == "openvino:cpu"
    assert [each.runtime for each in answer.unknown_accuracy] == ["ort:cpu"]


def test_one_is_not_called_several() -> None:
    own = of(None, row(1.0))
    told = ask(own, of(SMALL, row(1.0, 1.0, samples=1)), evaluations=[evaluation(own, ort=0.9)])
    assert told.best is not None
    assert told.best.top1_source == "measured on 200 images, ort:cpu"
    assert [each.reason for each in told.unanswered] == ["2 samples; p99 needs 662"]
    one = measurement(replicates=[replicate([1_000_000])])
    single = msgspec.structs.replace(evaluation(own, ort=0.9), images=1)
    told = ask(own, of(SMALL, one), evaluations=[single])
    assert told.best is not None
    assert told.best.top1_source == "measured on 1 image, ort:cpu"
    assert [each.reason for each in told.unanswered] == ["1 sample; p99 needs 662"]
    last = msgspec.structs.replace(told, best=None, not_measured=told.not_measured[:1])
    assert "1 published network was not measured so; these may be better:" in list(recommended(last))


def test_only_rows_of_the_precisions_that_are_asked_for() -> None:
    both = of(LARGE, row(4.0), row(2.0, mode="production", precision="bf16"))

    def latency_s(*precisions: Precision) -> float:
        best = ask(both, INT8, precisions=list(precisions)).best
        assert best is not None
        return best.latency_s

    assert (latency_s("f32"), latency_s("bf16"), latency_s("f32", "bf16")) == (0.004, 0.002, 0.002)
    answer = ask(both, INT8, precisions=["int8"])
    assert (answer.best, names(answer.unknown_accuracy), answer.not_measured) == (None, [INT8.artifact], [])
    with pytest.raises(InputError, match=r"with f16, batch 1; there are ort:cpu; .*; bf16, f32, int8; "):
        ask(both, INT8, precisions=["f16"])
