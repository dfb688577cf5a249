"""The bars, the pooling of both halves, and the page of benchmarks/precision.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbexport.quantize.change import Change
from mbexport.quantize.network import Network
from mbexport.quantize.placement import Islands, place, place_all_but
from precision_bench import judge as judging
from precision_bench.bars import bars
from precision_bench.networks import LARGE, SMALL
from precision_bench.page import has_markers, put_into, sections
from precision_bench.records import Distance, Found, Judged, Timed
from precision_bench.variants import FULL, variants
from tests.quantizing import mobile, pictures

if TYPE_CHECKING:
    from pathlib import Path

ORT, OPENVINO = "ort:cpu", "openvino:cpu"


def one_judged(**changes: Any) -> Judged:
    figures: dict[str, Any] = {"top1": 0.8, "top1_drop": 0.01, "top1_drop_ci": (-0.01, 0.03), "agreement": 0.95}
    figures |= {"agreement_ci": (0.93, 0.97), "expected_drop": 0.002, "sqnr_db": 15.0}
    of = {key: changes.pop(key) for key in list(changes) if key in figures}
    keys: dict[str, Any] = {"network": SMALL.name, "form": "ort", "variant": FULL, "target": ORT, "calibrated_on": 200}
    return Judged(
        **(keys | {"divergence": 0.02, "seconds": 1.0} | changes), change=Change(pictures=400, **(figures | of))
    )


def met(found: Found, network: str, target: str, word: str) -> bool:
    (bar,) = (bar for bar in bars(found) if (bar.network, bar.target) == (network, target) and word in bar.wanted)
    return bar.met


@pytest.mark.parametrize(("drop", "holds"), [(-0.02, True), (0.01, True), (0.0125, False)])
def test_points_on_onnx_runtime(drop: float, holds: bool) -> None:
    assert met(Found(ablation=[one_judged(top1_drop=drop)]), SMALL.name, ORT, "points") is holds


@pytest.mark.parametrize(("agreement", "holds"), [(0.96, True), (0.95, True), (0.9475, False)])
def test_agreement_on_openvino(agreement: float, holds: bool) -> None:
    found = Found(ablation=[one_judged(form="openvino", target=OPENVINO, agreement=agreement)])
    assert met(found, SMALL.name, OPENVINO, "agreement") is holds


def test_a_bar_is_of_the_engines_own_file() -> None:
    """V3 has two; the other engine's file is judged too, and answers for nothing."""
    foreign = one_judged(form="openvino", target=ORT, agreement=0.5)
    assert met(Found(ablation=[foreign, one_judged()]), SMALL.name, ORT, "agreement")
    assert not met(Found(ablation=[foreign]), SMALL.name, ORT, "agreement")


def test_nothing_measured_is_nothing_met() -> None:
    found = bars(Found())
    assert len(found) > 20
    assert not any(bar.met for bar in found)
    assert {bar.found for bar in found} == {None}


def distances(int8_db: float, bf16_db: float, nncf_db: float) -> Found:
    kinds = (("int8", int8_db), ("bf16", bf16_db), ("nncf", nncf_db))
    return Found(
        distances=[
            Distance(network=LARGE.name, what=what, target=OPENVINO, reference_db=db, photographs_db=db - 50)
            for what, db in kinds
        ]
    )


@pytest.mark.parametrize(
    ("int8_db", "bf16_holds", "nncf_holds"), [(17.0, True, True), (15.1, True, True), (14.9, False, False)]
)
def test_distances(int8_db: float, bf16_holds: bool, nncf_holds: bool) -> None:
    found = distances(int8_db, 25.0, 9.0)
    assert met(found, LARGE.name, OPENVINO, "reference pictures at least bf16's -10 dB") is bf16_holds
    assert met(found, LARGE.name, OPENVINO, "photographs at least nncf's +6 dB") is nncf_holds


@pytest.mark.parametrize(("ratio", "holds"), [(1.25, True), (1.24, False)])
def test_speed(ratio: float, holds: bool) -> None:
    keys: dict[str, Any] = {"network": SMALL.name, "target": ORT, "row": FULL, "p50_s": 1e-3, "precision": "int8"}
    assert met(Found(timed=[Timed(**keys, ratio=ratio, ratio_ci=(1.0, 2.0))]), SMALL.name, ORT, "1.25 times") is holds


@pytest.mark.parametrize(("ratio", "holds"), [(1.1, True), (0.9, False)])
def test_speed_at_default_options_is_not_that_of_one_thread(ratio: float, holds: bool) -> None:
    keys: dict[str, Any] = {"network": SMALL.name, "target": ORT, "row": FULL, "p50_s": 1e-3, "precision": "int8"}
    found = Found(
        timed=[Timed(**keys, ratio=2 - ratio, ratio_ci=(0.5, 2.0))],
        by_default=[Timed(**keys, ratio=ratio, ratio_ci=(0.5, 2.0))],
    )
    assert met(found, SMALL.name, ORT, "default options") is holds


def test_halves_are_judged_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half's file sees the other half alone, and both answers are put beside the right truth and labels."""
    shown, seen = np.arange(10), []

    def answers(model: int, _target: str, pictures: Any) -> Any:
        seen.append((model, pictures.tolist()))
        return pictures

    def change(_output: object, exact: Any, narrow: Any, labels: Any) -> Change:
        assert exact.tolist() == narrow.tolist() == labels.tolist()
        return Change(pictures=len(exact), expected_drop=0.0, agreement=1.0, agreement_ci=(1.0, 1.0), sqnr_db=None)

    monkeypatch.setattr(judging, "change", change)
    monkeypatch.setattr(judging, "_divergence", lambda *_: 0.0)
    subject: Any = SimpleNamespace(
        name="n",
        shown=shown,
        exact=shown,
        labels=shown,
        output=None,
        answers=answers,
        judging=lambda half: slice(1 - half, None, 2),
        calibrating=lambda half: [shown[half::2]],
    )
    make: Any = lambda _subject, half: half  # noqa: E731
    (found,) = judging.judge([subject, subject], "ort", FULL, [ORT], make)
    assert seen == [(0, [1, 3, 5, 7, 9]), (1, [0, 2, 4, 6, 8])] * 2
    assert (found.change.pictures, found.calibrated_on) == (20, 5)


@pytest.mark.parametrize("form", ["ort", "openvino"])
def test_each_variant_leaves_one_thing_out(form: Any) -> None:
    network = Network(mobile())
    found = list(variants(network, form, Islands(), [pictures(4)]))
    assert found[0].name == FULL
    assert len({variant.name for variant in found}) == len(found)
    changed = [vars(variant.recipe) for variant in found if variant.name.startswith("without ")]
    assert all(sum(not on for on in recipe.values()) == 1 for recipe in changed)
    assert ("without by channel" in {variant.name for variant in found}) is (form == "openvino")
    assert not {"without widening", "without whole pixels"} & {variant.name for variant in found}


def test_what_stays_in_float32_is_not_placed() -> None:
    network = Network(mobile())
    left = {"one/project"}
    assert place(network, "openvino", Islands()).products - place_all_but(network, "openvino", left).products == left


def test_page_keeps_what_is_outside_of_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- precision bars -->\nold\n<!-- /precision bars -->\nafter\n")
    put_into(page, sections(Found(ablation=[one_judged()], islands={f"{SMALL.name}/ort": Islands()})))
    text = page.read_text()
    assert text.startswith("before\n<!-- precision bars -->\n| network |")
    assert text.endswith("<!-- /precision bars -->\nafter\n")
    assert "| V3 Small | ort:cpu | agreement at least 94.0% | 95.00% [93.0%, 97.0%] | yes |" in text
    assert "old" not in text


def test_another_machine_has_markers_of_its_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first = "<!-- precision bars -->\nold\n<!-- /precision bars -->\n"
    second = first.replace("bars", "bars amx")
    tables = sections(Found(ablation=[one_judged()]))
    page.write_text(first + second)
    assert has_markers(page, "amx")
    assert not has_markers(page, "amd")
    put_into(page, tables, "amx")
    assert page.read_text().startswith(f"{first}<!-- precision bars amx -->\n| network |")
    assert page.read_text().endswith("<!-- /precision bars amx -->\n")
    assert page.read_text().count("old") == 1
    page.write_text(first + second)
    put_into(page, tables)
    assert page.read_text().startswith("<!-- precision bars -->\n| network |")
    assert page.read_text().endswith(second)
