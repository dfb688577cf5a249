"""``list``, ``info`` and what ``profile show`` says of published figures."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from mbexport import catalog, profiles
from mbexport.profiles import profile_path, write_profile
from mbexport_cli.app import app
from tests.measured import measurement, profile

if TYPE_CHECKING:
    from pathlib import Path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_list_json_has_published_and_computed_figures() -> None:
    document = json.loads(invoke("list", "--json").stdout)
    models = {entry["name"]: entry for entry in document["models"]}
    assert len(models) == 28
    small = models["mobilenet_v3_small_1.0_224"]
    assert (small["top1"], small["pixel1_s"], small["macs_millions"]) == (0.681, 0.0158, 66)
    assert small["source"].startswith("Keras")
    assert small["timm"]["top5"] == 0.8768
    assert small["computed"]["parameters"] == 2_554_968  # Keras's count_params()
    assert any("2.9 M parameters do not hold" in line for line in small["disagreements"])
    assert small["imagenet"]["file"] == "weights_mobilenet_v3_small_224_1.0_float.h5"
    assert models["mobilenet_v2_1.4_224"]["pixel1_s"] == 0.138
    assert {entry["name"] for entry in document["without_figures"]} == {
        *(f"mobilenet_v2_1.3_{side}" for side in (96, 128, 160, 192)),
        *(f"mobilenet_v2_1.4_{side}" for side in (128, 160, 192)),
    }
    assert document["holes"] == ["mobilenet_v2_1.4_96"]


def test_list_shows_every_figure_and_the_holes_at_80_columns() -> None:
    lines = invoke("list").stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in reversed(lines) if line.strip()}
    for entry in catalog.PUBLISHED:
        top5 = "-" if entry.top5 is None else f"{entry.top5 * 100:.1f}"
        figures = [f"{entry.top1 * 100:.1f}", top5, f"{entry.pixel1_s * 1e3:.1f}"]
        assert rows[entry.name][-3:] == figures
        assert rows[entry.name][1] == str(entry.macs_millions)
        if entry.timm is not None:
            assert rows[entry.timm.name][1:] == [f"{entry.timm.top1 * 100:.2f}", f"{entry.timm.top5 * 100:.2f}"]
    assert rows["1.4"] == ["none", "weights", "weights", "weights", "75.0"]
    assert rows["1.3"] == ["weights"] * 4 + ["74.4"]
    assert rows["0.35"] == ["45.5", "50.8", "55.7", "58.2", "60.3"]
    assert all(len(line) <= 80 for line in lines if "do not hold" not in line)
    for source in ("Keras, docstring", "TF-slim, research/slim", "timm, docs/models", "Pixel 1: Google Pixel 1"):
        assert source in "\n".join(lines)


@pytest.mark.parametrize("entry", catalog.PUBLISHED, ids=lambda entry: entry.name)
def test_info_of_a_published_network_fits_80_columns(entry: catalog.Published) -> None:
    text = invoke("info", "--model", entry.name).stdout
    assert all(len(line) <= 80 for line in text.splitlines() if "do not hold" not in line)
    assert f"{entry.pixel1_s * 1e3:.1f} ms on Google Pixel 1" in text
    for source in (entry.source, *(other.source for other in entry.elsewhere)):
        assert source in text


def test_info_has_each_source_with_its_own_figure() -> None:
    text = invoke("info", "--variant", "large").stdout
    published = text.partition("published, in float32\n")[2]
    blocks = dict(re.findall(r"^  (\w[^\n]+)\n    ([^\n]+)", published, flags=re.MULTILINE))
    assert "top-1 75.6 %" in blocks["Keras, docstring of MobileNetV3Large and MobileNetV3Small"]
    assert blocks["TF-slim, research/slim/nets/mobilenet/README.md of tensorflow/models"] == "top-1 75.2 %"
    assert blocks["timm, results/results-imagenet.csv"] == "top-1 75.516 %, top-5 92.594 %"
    assert "top-1 75.51 %, top-5 92.61 % at 224, bilinear, crop 0.875" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "small", "--resolution", "192"], "trained at 224 pixels, not at 192"),
        (["--variant", "v2", "--alpha", "1.4", "--resolution", "96"], "never published at 96"),
        (["--variant", "v2", "--classes", "10"], "1000 classes, not 10"),
        (["--model", "mobilenet_v2_1.3_160"], "tf_kernels_1.3_160.h5"),
    ],
)
def test_info_says_which_imagenet_weights_there_are(arguments: list[str], words: str) -> None:
    done = invoke("info", *arguments)
    assert done.exit_code == 0
    assert words in done.stdout
    document = json.loads(invoke("info", *arguments, "--json").stdout)
    assert (document["imagenet"] is None) == (document["no_imagenet"] is not None)


def test_a_hole_by_name_is_refused() -> None:
    done = invoke("info", "--model", "mobilenet_v2_1.4_96")
    assert done.exit_code == 2
    assert "hole in the published grid" in done.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one measured profile; nothing travels with mbexport but what was published."""
    monkeypatch.chdir(tmp_path)
    published = profiles.shipped_profiles_dir() / "published" / "google-pixel-1.json"
    (tmp_path / "shipped" / "published").mkdir(parents=True)
    (tmp_path / "shipped" / "published" / published.name).write_bytes(published.read_bytes())
    monkeypatch.setattr(profiles, "shipped_profiles_dir", lambda: tmp_path / "shipped")
    name = "mobilenet_v3_small_0.75_224"
    mine = profile(measurement(), artifact=name)
    write_profile(profile_path(tmp_path / "profiles", mine.hardware, name), mine)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_profile_show_marks_what_was_not_measured() -> None:
    text = invoke("profile", "show", "mobilenet_v3_small_0.75_224").stdout
    measured, mark, published = text.partition("published, not measured: ")
    assert mark
    assert "measured here" in measured
    assert "12.8" not in measured
    assert re.search(r"^mobilenet_v3_small_0\.75_224 +12\.8$", published, flags=re.MULTILINE)
    assert "source: Keras" in published
    assert "mobilenet_v2" not in published
    assert all(len(line) <= 80 for line in text.splitlines() if "published, not measured" not in line)


@pytest.mark.usefixtures("here")
def test_profile_show_json_keeps_published_figures_apart() -> None:
    document = json.loads(invoke("profile", "show", "--json").stdout)
    assert [entry["artifact"] for entry in document["profiles"]] == ["mobilenet_v3_small_0.75_224"]
    [published] = document["published"]
    assert (published["kind"], published["shipped"]) == ("published, not measured", True)
    latencies = {row["artifact"]: row["latency_s"] for row in published["rows"]}
    assert latencies["mobilenet_v3_large_1.0_224"] == 0.0512
    only = json.loads(invoke("profile", "show", "pixel", "--json").stdout)
    assert (only["profiles"], len(only["published"][0]["rows"])) == ([], len(latencies))
    assert "no profiles yet" not in invoke("profile", "show", "pixel").stdout
