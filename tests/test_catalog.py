from __future__ import annotations

import re

import msgspec
import pytest

from mbexport import catalog
from mbexport.errors import SpecError
from mbexport.spec import ModelSpec


def test_v3_figures_are_those_of_the_installed_keras() -> None:
    mobilenet_v3 = pytest.importorskip("keras.src.applications.mobilenet_v3")
    rows = re.findall(
        r"\| (mobilenet_v3_\S+)\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)",
        mobilenet_v3.BASE_DOCSTRING,
    )
    ours = {entry.name: entry for entry in catalog.PUBLISHED if entry.spec.is_v3}
    assert {name for name, *_ in rows} == set(ours)
    for name, *figures in rows:
        entry = ours[name]
        assert [float(figure) for figure in figures] == pytest.approx(
            [entry.macs_millions, entry.parameters_millions, entry.top1 * 100, entry.pixel1_s * 1e3]
        )


def test_v2_is_published_at_five_sizes_up_to_alpha_1_and_at_224_above() -> None:
    grid = {(entry.spec.alpha, entry.spec.height) for entry in catalog.PUBLISHED if not entry.spec.is_v3}
    sizes = (96, 128, 160, 192, 224)
    assert grid == {(alpha, size) for alpha in (0.35, 0.5, 0.75, 1.0) for size in sizes} | {(1.3, 224), (1.4, 224)}
    assert len(catalog.PUBLISHED) == 6 + len(grid)


def test_wider_and_larger_networks_are_published_as_better() -> None:
    """A slip of the pen in the table would break the order that the paper shows."""
    v2 = [entry for entry in catalog.PUBLISHED if not entry.spec.is_v3]
    for one in v2:
        for other in v2:
            if one.spec.alpha >= other.spec.alpha and one.spec.size > other.spec.size:
                assert one.top1 > other.top1
                assert (one.top5 or 0) > (other.top5 or 0)


def test_larger_networks_are_published_as_slower() -> None:
    v2 = [entry for entry in catalog.PUBLISHED if not entry.spec.is_v3]
    for one in v2:
        for other in v2:
            if one.spec.alpha >= other.spec.alpha and one.spec.size > other.spec.size:
                assert one.pixel1_s > other.pixel1_s
                assert one.macs_millions > other.macs_millions


# The model index at the end of timm's docs/models/tf-mobilenet-v3.md: top-1 and top-5 in percent.
TIMM = {
    "tf_mobilenetv3_large_075": (73.45, 91.34),
    "tf_mobilenetv3_large_100": (75.51, 92.61),
    "tf_mobilenetv3_large_minimal_100": (72.24, 90.64),
    "tf_mobilenetv3_small_075": (65.72, 86.13),
    "tf_mobilenetv3_small_100": (67.92, 87.68),
    "tf_mobilenetv3_small_minimal_100": (62.91, 84.24),
}


def test_timm_figures_are_those_of_its_documentation() -> None:
    ports = {entry.timm.name: entry for entry in catalog.PUBLISHED if entry.timm is not None}
    assert ports.keys() == TIMM.keys()
    for name, figures in TIMM.items():
        port = ports[name].timm
        assert port is not None
        assert (port.top1 * 100, port.top5 * 100) == pytest.approx(figures)
        assert (port.crop, port.interpolation, port.side_px) == (0.875, "bilinear", 224)
        # The same checkpoint by the same project at another time: a slip of the pen would stand out.
        [csv] = [other for other in ports[name].elsewhere if "timm" in other.source]
        assert (csv.top1, csv.top5) == pytest.approx((port.top1, port.top5), abs=0.0003)


def test_every_figure_has_a_source() -> None:
    for entry in catalog.PUBLISHED:
        sources = [entry.source, *(other.source for other in entry.elsewhere)]
        assert all(re.match(r"(Keras|TF-slim|timm), \w+", source) for source in sources)
        assert len(set(sources)) == len(sources)


def test_names_with_weights_are_the_published_ones_and_the_rest_of_the_grid() -> None:
    """29 of V2 (six alphas at five sizes, less one hole) and 6 of V3."""
    with_weights = [entry.spec for entry in catalog.PUBLISHED] + list(catalog.WITHOUT_FIGURES)
    assert len({spec.slug for spec in with_weights}) == len(with_weights) == 29 + 6
    for spec in with_weights:
        assert catalog.describe(spec).imagenet is not None
        assert catalog.describe(spec).no_imagenet is None
        assert catalog.spec_by_name(spec.slug) == spec
    assert all(catalog.find(spec) is None for spec in catalog.WITHOUT_FIGURES)


def test_the_hole_is_named_as_one() -> None:
    [hole] = catalog.HOLES
    assert hole == ModelSpec(variant="v2", alpha=1.4, height=96, width=96)
    about = catalog.describe(hole)
    assert about.imagenet is None
    assert about.no_imagenet is not None
    assert "never published at 96" in about.no_imagenet
    with pytest.raises(SpecError, match=r"mobilenet_v2_1\.4_96 is a hole in the published grid"):
        catalog.spec_by_name("mobilenet_v2_1.4_96")


def test_names_are_slugs() -> None:
    assert all(entry.name == entry.spec.slug for entry in catalog.PUBLISHED)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("mobilenet_v3_large_0.75_224", ModelSpec(variant="large", alpha=0.75)),
        ("mobilenet_v3_small_minimalistic_1.0_224", ModelSpec(variant="small", minimalistic=True)),
        ("mobilenet_v2_0.35_96", ModelSpec(variant="v2", alpha=0.35, height=96, width=96)),
        ("tf_mobilenetv3_large_075", ModelSpec(variant="large", alpha=0.75)),
        ("tf_mobilenetv3_large_minimal_100", ModelSpec(variant="large", minimalistic=True)),
        ("TF_MobileNetV3_Small_100", ModelSpec(variant="small")),
    ],
)
def test_spec_by_name(name: str, spec: ModelSpec) -> None:
    assert catalog.spec_by_name(name) == spec


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("mobilenet_v3_large_0.75_225", "mobilenet_v3_large_0.75_224"),
        ("tf_mobilenetv3_large_75", "tf_mobilenetv3_large_075"),
        ("resnet", "mbexport list"),
        ("", "mbexport list"),
    ],
)
def test_unknown_names_get_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(SpecError, match=re.escape(suggestion)):
        catalog.spec_by_name(name)


def test_find_speaks_of_imagenet_classifiers_only() -> None:
    small = ModelSpec(variant="small")
    found = catalog.find(msgspec.structs.replace(small, classifier_activation="none", dropout_rate=0.5))
    assert found is not None
    assert found.name == "mobilenet_v3_small_1.0_224"
    for change in ({"classes": 10}, {"include_top": False}, {"alpha": 0.9}, {"height": 192}, {"variant": "v2"}):
        other = catalog.find(msgspec.structs.replace(small, **change))
        assert other is None or other.name != found.name
    assert catalog.find(msgspec.structs.replace(small, classes=10)) is None


def test_figures_that_do_not_hold_are_named() -> None:
    disagreements = {entry.name: catalog.describe(entry.spec).disagreements for entry in catalog.PUBLISHED}
    faulty = {name: " ".join(sentences) for name, sentences in disagreements.items() if sentences}
    assert set(faulty) == {
        "mobilenet_v3_small_1.0_224",
        "mobilenet_v3_small_0.75_224",
        "mobilenet_v3_small_minimalistic_1.0_224",
    }
    # 2.54 and 2.04 M are timm's counts of the same networks.
    assert "2.9 M parameters do not hold: the network has 2.54 M" in faulty["mobilenet_v3_small_1.0_224"]
    assert "2.4 M parameters do not hold: the network has 2.04 M" in faulty["mobilenet_v3_small_0.75_224"]
    assert "66 M multiply-accumulates do not hold" in faulty["mobilenet_v3_small_1.0_224"]
    assert "65 M multiply-accumulates do not hold" in faulty["mobilenet_v3_small_minimalistic_1.0_224"]
    assert "multiply-accumulates" not in faulty["mobilenet_v3_small_0.75_224"]
    assert not any("timm" in sentences for sentences in faulty.values())


@pytest.mark.parametrize("off", [-2, 2])
def test_a_wrong_figure_would_be_noticed(monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    """In the last published digit, for a checkpoint whose figures hold."""
    spec = ModelSpec(variant="large", alpha=0.75)
    right = catalog.find(spec)
    assert right is not None
    wrong = msgspec.structs.replace(
        right, macs_millions=right.macs_millions + off, parameters_millions=right.parameters_millions + off / 10
    )
    monkeypatch.setattr(catalog, "find", lambda _: wrong)
    assert len(catalog.describe(spec).disagreements) == 2


def test_describe_without_published_figures_goes_to_json() -> None:
    info = catalog.describe(ModelSpec(variant="v2", alpha=0.6))
    document = msgspec.json.decode(msgspec.json.encode(info))
    assert document["published"] is None
    assert document["disagreements"] == []
    assert {"spec", "parameters", "macs"} <= set(document)
