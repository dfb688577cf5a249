"""A bundle made again from its own manifests."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mbexport.artifact import read_artifact
from mbexport.bundle.archive import written
from mbexport.bundle.make import bundle
from mbexport.bundle.rebuild import Given, rebuild
from mbexport.bundle.verify import verify
from mbexport.errors import InputError, MissingPackageError
from mbexport.pipeline import build, convert
from mbexport.quantize.run import quantize
from mbexport.spec import ExportOptions, ModelSpec
from tests import user_models
from tests.fixtures import digits
from tests.quantizing import clocked_as

if TYPE_CHECKING:
    from collections.abc import Callable

    from mbexport.artifact import Artifact

ORT = ["ort:cpu"]


def shipped(folder: Path, *artifacts: Artifact) -> Path:
    bundle(artifacts, folder / "b.zip", ORT)
    return folder / "b.zip"


def photographs(folder: Path, count: int, side_px: int = 40) -> Path:
    """Pictures of plain areas and noise."""
    folder.mkdir()
    for number in range(count):
        chance = np.random.default_rng(number)
        shown = np.full((side_px, side_px, 3), chance.integers(0, 200, 3), np.uint8)
        shown[: side_px // 2] += chance.integers(0, 50, (side_px // 2, side_px, 3)).astype(np.uint8)
        Image.fromarray(shown).save(folder / f"{number:03}.png")
    return folder


def lied(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with another artifact manifest, its own manifest true to it."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in contents if name.endswith("/manifest.json"))
    document = json.loads(contents[name])
    change(document)
    contents[name] = json.dumps(document).encode()
    told = json.loads(contents["bundle.json"])
    told["files"][name] = hashlib.sha256(contents[name]).hexdigest()
    contents["bundle.json"] = json.dumps(told).encode()
    out = path.with_name("lied.zip")
    out.write_bytes(written(contents))
    return out


@pytest.fixture(scope="module")
def random_weights(small_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(tmp_path_factory.mktemp("random"), small_artifact)


def test_random_weights_come_out_to_the_byte(random_weights: Path, tmp_path: Path) -> None:
    report = rebuild(random_weights, tmp_path / "again.zip")
    assert {part.part: part.result for part in report.parts} == {
        "model.onnx": "same",
        "contract": "same",
        "labels.json": "same",
        "reference": "same",
    }
    assert report.passed
    assert report.identical
    assert (tmp_path / "again.zip").read_bytes() == random_weights.read_bytes()


def test_another_seed_shows(random_weights: Path, tmp_path: Path) -> None:
    path = lied(random_weights, lambda document: document["weights"].update(seed=1))
    report = rebuild(path, tmp_path / "again.zip")
    assert not report.passed
    results = {part.part: part.result for part in report.parts}
    assert (results["model.onnx"], results["reference"]) == ("differs", "differs")


def test_another_version_of_a_tool_is_refused(random_weights: Path, tmp_path: Path) -> None:
    path = lied(random_weights, lambda document: document["tools"].update(keras="2.0"))
    with pytest.raises(MissingPackageError, match=r"keras 2\.0, and here it is .*pip install 'keras==2\.0'"):
        rebuild(path, tmp_path / "again.zip")
    assert list(tmp_path.iterdir()) == []


def test_evidence_is_carried_over_and_not_made_again(random_weights: Path, tmp_path: Path) -> None:
    def evidence(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as file:
            return {name: file.read(name) for name in file.namelist() if name.startswith("evidence/")}

    rebuild(random_weights, tmp_path / "again.zip")
    assert evidence(tmp_path / "again.zip") == evidence(random_weights) != {}


def test_a_weights_file(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"digit {number}" for number in range(10)))
    golden = photographs(tmp_path / "golden", 2)
    made = build(digits.SPEC, weights=str(digits.WEIGHTS), out=tmp_path, labels=labels, golden=golden)
    path = shipped(tmp_path, made.artifact)
    out = tmp_path / "again.zip"
    with pytest.raises(InputError, match="give it with --weights"):
        rebuild(path, out)
    assert not out.exists()
    report = rebuild(path, out, Given(weights=digits.WEIGHTS))
    assert report.passed
    assert report.identical
    assert verify(out, ORT).passed


def test_other_weights_are_refused(random_weights: Path, tmp_path: Path) -> None:
    """The manifest names a file's digest, and the file given has another."""
    made = build(digits.SPEC, weights=str(digits.WEIGHTS), out=tmp_path)
    path = lied(shipped(tmp_path, made.artifact), lambda document: document["weights"].update(sha256="0" * 64))
    with pytest.raises(InputError, match="is not the file that"):
        rebuild(path, tmp_path / "again.zip", Given(weights=digits.WEIGHTS))


@pytest.mark.parametrize("input_range", [(-1.0, 1.0), (0.0, 255.0), None])
def test_a_users_own_network(input_range: tuple[float, float] | None, tmp_path: Path) -> None:
    model = user_models.with_weights(user_models.few_layers(user_models.keras3()))
    saved = user_models.saved(model, tmp_path / "own.keras")
    path = shipped(tmp_path, convert(saved, out=tmp_path, input_range=input_range).artifact)
    report = rebuild(path, tmp_path / "again.zip", Given(weights=saved))
    assert report.passed
    assert report.identical


@pytest.mark.parametrize("precision", ["int8", "f16"])
def test_a_narrower_sibling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    clocked_as(monkeypatch, 2.0)
    spec = ModelSpec(variant="v2", alpha=0.35, height=32, width=32, classes=10)
    exact = build(spec, export=ExportOptions(), out=tmp_path).artifact
    images = photographs(tmp_path / "images", 32)
    narrow = read_artifact(Path(quantize(exact, images, ORT, precision=precision).artifact))
    both = shipped(tmp_path, exact, narrow)
    with pytest.raises(InputError, match="--images"):
        rebuild(both, tmp_path / "again.zip")
    report = rebuild(both, tmp_path / "again.zip", Given(images=images))
    assert {part.result for part in report.parts} == {"same"}
    assert report.identical
    assert narrow.manifest.derivation is not None
    used = narrow.manifest.derivation.pictures_sha256[-1]
    next(path for path in images.iterdir() if hashlib.sha256(path.read_bytes()).hexdigest() == used).unlink()
    (images / "dangling.png").symlink_to("nowhere")
    with pytest.raises(InputError, match="lacks 1 of the"):
        rebuild(both, tmp_path / "again.zip", Given(images=images))


def test_a_narrower_artifact_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its float32 network is built on the way, and is no part of the bundle."""
    clocked_as(monkeypatch, 2.0)
    spec = ModelSpec(variant="small", alpha=0.35, height=32, width=32, classes=10)
    exact = build(spec, export=ExportOptions(), out=tmp_path).artifact
    images = photographs(tmp_path / "images", 32)
    narrow = read_artifact(Path(quantize(exact, images, ORT, precision="f16").artifact))
    assert rebuild(shipped(tmp_path, narrow), tmp_path / "again.zip", Given(images=images)).identical


def test_a_users_own_network_as_it_was_converted(tmp_path: Path) -> None:
    """Of an open size, with code in it, its range put inside: the manifest has the first, the user the others."""
    keras = user_models.keras3()
    body = user_models.few_layers(keras, (None, None, 3))
    doubled = keras.layers.Lambda(lambda x: x * 2.0, name="doubled")(body.output)
    saved = user_models.saved(user_models.with_weights(keras.Model(body.input, doubled)), tmp_path / "own.keras")
    uint8 = ExportOptions(input_type="uint8")
    made = convert(saved, out=tmp_path, export=uint8, size=(32, 48), input_range=(0.0, 1.0), allow_unsafe=True)
    path = shipped(tmp_path, made.artifact)
    with pytest.raises(InputError, match="--allow-unsafe"):
        rebuild(path, tmp_path / "again.zip", Given(saved, input_range=(0.0, 1.0)))
    assert not rebuild(path, tmp_path / "again.zip", Given(saved, allow_unsafe=True)).passed
    assert rebuild(path, tmp_path / "again.zip", Given(saved, input_range=(0.0, 1.0), allow_unsafe=True)).identical


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (Given(weights=Path("w")), "--weights is for artifacts made of a file"),
        (Given(images=Path("i")), "--images is for int8 and f16 artifacts"),
        (Given(input_range=(0.0, 1.0)), "--input-range is for networks of a user's own"),
        (Given(allow_unsafe=True), "--allow-unsafe is for networks of a user's own"),
    ],
)
def test_what_nothing_reads_is_refused(random_weights: Path, given: Given, option: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{option}, and this bundle has none"):
        rebuild(random_weights, tmp_path / "again.zip", given)
