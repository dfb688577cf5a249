from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mbexport.artifact import read_artifact, read_labels, read_reference, write_artifact
from mbexport.build import build_model
from mbexport.diagnose import contract_fault, metadata_fault
from mbexport.pictures import REFERENCE_PICTURES, REFERENCE_SEED, pictures, reference_pictures
from mbexport.pipeline import build
from mbexport.spec import ExportOptions, InputType, Layout, ModelSpec, Preprocess
from mbexport.validate import Checks, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.manifest import InputContract

V2 = ModelSpec(variant="v2", alpha=0.35, height=64, width=64, classes=12)
V3 = ModelSpec(variant="small", alpha=0.35, height=64, width=64, classes=12)
TARGETS = ["ort:cpu", "openvino:cpu"]


def answers(artifact: Artifact, inputs: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": inputs})
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    out = tmp_path_factory.mktemp("plain")
    return {"v2": build(V2, out=out).artifact, "small": build(V3, out=out).artifact}


@pytest.mark.parametrize(
    ("spec", "layout", "input_type", "preprocess"),
    [
        (V2, "nhwc", "uint8", "outside"),
        (V2, "nchw", "uint8", "in-graph"),
        (V2, "nhwc", "float32", "in-graph"),
        (V3, "nchw", "uint8", "outside"),
        (msgspec.structs.replace(V3, include_preprocessing=False), "nhwc", "uint8", "outside"),
    ],
)
def test_pictures_go_in_as_they_are(
    spec: ModelSpec, layout: Layout, input_type: InputType, preprocess: Preprocess, tmp_path: Path
) -> None:
    """Against Keras on the same pictures, scaled as its documentation says, with the same weights."""
    export = ExportOptions(layout=layout, input_type=input_type, preprocess=preprocess)
    artifact = build(spec, export=export, out=tmp_path).artifact
    contract = artifact.manifest.input
    assert (contract.type, contract.range, contract.mean, contract.scale) == (input_type, (0.0, 255.0), 0.0, 1.0)
    shown = pictures(3, 64, 64, seed=8)
    fed = (shown.transpose(0, 3, 1, 2) if layout == "nchw" else shown).astype(input_type)
    expected = np.asarray(build_model(spec).model(shown / np.float32(127.5) - 1 if not spec.rescales_inside else shown))
    np.testing.assert_allclose(answers(artifact, fed), expected, rtol=2e-3, atol=1e-5)
    report = validate(read_artifact(artifact.path), TARGETS)
    assert report.passed, report.rows
    ops = artifact.manifest.graph.ops
    assert ops.get("Cast", 0) == (input_type == "uint8")
    readers = [node.op_type for node in onnx.load(artifact.path / "model.onnx").graph.node[:4]]
    assert "Mul" not in readers  # the scale went into the first kernel


def test_v3_rescales_inside_anyway(plain: dict[str, Artifact], tmp_path: Path) -> None:
    asked = build(V3, export=ExportOptions(preprocess="in-graph"), out=tmp_path).artifact
    assert asked.manifest.graph.ops == plain["small"].manifest.graph.ops
    assert asked.manifest.input == plain["small"].manifest.input


def edited(artifact: Artifact, out: Path, *, told: bool, **changes: Any) -> Artifact:
    """The artifact with another input contract; ``told``: the model's metadata say the same."""
    contract = msgspec.structs.replace(artifact.manifest.input, **changes)
    model = onnx.load(artifact.path / "model.onnx")
    for entry in model.metadata_props:
        if told and entry.key == "mbexport.input":
            entry.value = msgspec.json.encode(contract).decode()
    manifest = msgspec.structs.replace(artifact.manifest, input=contract)
    return write_artifact(
        out, manifest, {"model.onnx": model.SerializeToString()}, read_reference(artifact), name="edited"
    )


def reasons(artifact: Artifact, targets: list[str]) -> list[str]:
    report = validate(read_artifact(artifact.path), targets, Checks(modes=("parity",)))
    assert not report.passed
    assert not any(row.passed for row in report.rows)
    return [row.reason or "" for row in report.rows]


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    [
        ("v2", {"colour_order": "BGR"}, "BGR"),
        ("v2", {"mean": 0.0, "scale": 1.0, "range": (0.0, 255.0)}, "range|the scaling would be missing"),
        ("small", {"mean": 127.5, "scale": 127.5, "range": (-1.0, 1.0)}, "range|scaled twice"),
        ("v2", {"layout": "nchw"}, "nchw"),
        ("small", {"type": "uint8"}, "uint8"),
    ],
)
def test_a_wrong_contract_is_named(
    plain: dict[str, Artifact], name: str, changes: dict[str, Any], cause: str, told: bool, tmp_path: Path
) -> None:
    import re

    for reason in reasons(edited(plain[name], tmp_path, told=told, **changes), TARGETS):
        assert reason.startswith("the input contract is wrong")
        assert re.search(cause, reason)


@pytest.mark.parametrize("stated", ['{"layout": "nchw"}', '{"layout": "nchw", "scale": "x"}'])
def test_metadata_of_a_stranger(plain: dict[str, Artifact], stated: str, tmp_path: Path) -> None:
    artifact = edited(plain["v2"], tmp_path, told=False)
    model = onnx.load(artifact.path / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "mbexport.input":
            entry.value = stated
    (artifact.path / "model.onnx").write_bytes(model.SerializeToString())
    assert metadata_fault(artifact) == (
        "the input contract is wrong: manifest.json says layout nhwc, model.onnx was built for nchw"
    )


def swap_colours(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "swap"))
    in_front(model, helper.make_node("Gather", ["input", "swap"], ["changed"], axis=3))


def scale_again(model: onnx.ModelProto) -> None:
    """Rescaling where the pictures were scaled outside already, or a second one."""
    for name, number in (("centre", 127.5), ("half", 127.5)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    in_front(model, helper.make_node("Sub", ["input", "centre"], ["centred"]))
    model.graph.node.insert(1, helper.make_node("Div", ["centred", "half"], ["changed"]))


def unscale(model: onnx.ModelProto) -> None:
    """A network that lost the scaling in front of it, so that it expects -1..1 where 0..255 comes."""
    for name, number in (("centre", 127.5), ("half", 127.5)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    in_front(model, helper.make_node("Mul", ["input", "half"], ["grown"]))
    model.graph.node.insert(1, helper.make_node("Add", ["grown", "centre"], ["changed"]))


def other_layout(model: onnx.ModelProto) -> None:
    in_front(model, helper.make_node("Transpose", ["input"], ["changed"], perm=[0, 2, 3, 1]))
    shape = [dim.dim_value or dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    moved = helper.make_tensor_value_info("input", TensorProto.FLOAT, [shape[0], shape[3], shape[1], shape[2]])
    model.graph.input[0].CopyFrom(moved)


def in_front(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    for reader in model.graph.node:
        reader.input[:] = ["changed" if name == "input" else name for name in reader.input]
    model.graph.node.insert(0, node)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("v2", swap_colours, "it takes colours as BGR, its contract says RGB"),
        ("v2", scale_again, r"it takes pictures of 0\.\.255, its contract brings them to -1\.\.1"),
        ("small", unscale, r"it takes pictures of -1\.\.1, its contract brings them to 0\.\.255"),
        ("small", scale_again, "a scaling to -1..1 stands in front of it twice"),
        ("v2", unscale, "a scaling to -1..1 is missing in front of it"),
        ("v2", other_layout, "it takes pictures as nchw, its contract says nhwc"),
    ],
)
def test_a_model_that_takes_other_pictures_is_explained(
    plain: dict[str, Artifact],
    name: str,
    change: Callable[[onnx.ModelProto], None],
    cause: str,
    target: str,
    tmp_path: Path,
) -> None:
    import re

    artifact = plain[name]
    model = onnx.load(artifact.path / "model.onnx")
    del model.graph.value_info[:]
    change(model)
    wrong = write_artifact(
        tmp_path, artifact.manifest, {"model.onnx": model.SerializeToString()}, read_reference(artifact), name="wrong"
    )
    (reason,) = reasons(wrong, [target])
    assert re.search(cause, reason), reason


def photographs(folder: Path, count: int) -> list[Any]:
    from PIL import Image

    folder.mkdir()
    shown = pictures(count, 100, 120, seed=31)
    for number, array in enumerate(shown):
        Image.fromarray(array).save(folder / f"{number}.png")
    return list(shown)


def test_golden_pictures_travel_with_their_top_5(tmp_path: Path) -> None:
    photographs(tmp_path / "golden", 4)
    (tmp_path / "golden" / "readme.txt").write_text("not a picture")
    (tmp_path / "names.txt").write_text("\n".join(f"kind {number}" for number in range(12)))
    artifact = build(V2, golden=tmp_path / "golden", labels=tmp_path / "names.txt", out=tmp_path).artifact
    kept = read_reference(artifact).golden
    assert len(kept) == len(artifact.manifest.golden) == 3
    model = build_model(V2).model
    for golden, entry in zip(kept, artifact.manifest.golden, strict=True):
        assert golden.picture.shape == (64, 64, 3)
        assert golden.picture.dtype == np.uint8
        expected = np.asarray(model(golden.picture[None] / np.float32(127.5) - 1))[0]
        assert [ranked.index for ranked in entry.top5] == list(np.argsort(-expected)[:5])
        assert [ranked.name for ranked in entry.top5] == [f"kind {index}" for index in np.argsort(-expected)[:5]]
    report = validate(read_artifact(artifact.path), TARGETS)
    assert report.passed
    assert report.golden == 3


def test_golden_pictures_catch_a_contract_that_nothing_else_contradicts(tmp_path: Path) -> None:
    """References of other pictures, and metadata that were changed too: the pictures themselves still tell."""
    photographs(tmp_path / "golden", 1)
    artifact = build(V2, golden=tmp_path / "golden", out=tmp_path).artifact
    reference = read_reference(artifact)
    contract = msgspec.structs.replace(artifact.manifest.input, colour_order="BGR")
    model = onnx.load(artifact.path / "model.onnx")
    del model.metadata_props[:]
    turned = replace(
        reference,
        inputs={name: array[::-1] for name, array in reference.inputs.items()},
        keras_float32={name: array[::-1] for name, array in reference.keras_float32.items()},
        keras_float64={name: array[::-1] for name, array in reference.keras_float64.items()},
    )
    manifest = msgspec.structs.replace(artifact.manifest, input=contract)
    wrong = write_artifact(tmp_path, manifest, {"model.onnx": model.SerializeToString()}, turned, name="wrong")
    for reason in reasons(wrong, TARGETS):
        assert "it takes colours as RGB, its contract says BGR" in reason
        assert reason.endswith("on golden picture 1")


def test_labels_travel_in_their_own_file_and_in_the_model(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps([{"name": f"kind {n}", "id": f"k{n}"} for n in range(12)]))
    artifact = build(V3, labels=tmp_path / "names.json", out=tmp_path).artifact
    found = read_labels(read_artifact(artifact.path))
    assert found is not None
    assert [(label.id, label.name) for label in found] == [(f"k{n}", f"kind {n}") for n in range(12)]
    metadata = {entry.key: entry.value for entry in onnx.load(artifact.path / "model.onnx").metadata_props}
    assert json.loads(metadata["mbexport.labels"])[3] == {"name": "kind 3", "id": "k3"}


def test_contract_names_the_resize_in_pixels(plain: dict[str, Artifact]) -> None:
    contract: InputContract = plain["v2"].manifest.input
    assert contract.resize_px == 73  # 64 / 0.875
    assert str(contract.resize_px) in contract.resize


def test_building_on_a_tensor_of_the_users(tmp_path: Path) -> None:
    """What stands in front becomes part of the network, and its range is read off the graph."""
    import keras

    inputs = keras.Input((64, 64, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    artifact = build(V2, input_tensor=scaled, out=tmp_path).artifact
    assert artifact.manifest.input.range == (0.0, 255.0)
    assert validate(read_artifact(artifact.path), TARGETS).passed


def test_a_range_that_is_not_that_of_mean_and_scale(plain: dict[str, Artifact], tmp_path: Path) -> None:
    wrong = edited(plain["small"], tmp_path, told=True, range=(-1.0, 1.0))
    for reason in reasons(wrong, TARGETS):
        assert reason == "the input contract is wrong: it says range -1..1, its mean and scale make 0..255"


def test_who_feeds_pictures_is_refused_too(plain: dict[str, Artifact], tmp_path: Path) -> None:
    from mbexport.errors import ArtifactError
    from mbexport.evaluate import evaluate
    from mbexport.predict import predict

    wrong = edited(plain["small"], tmp_path, told=False, mean=127.5, scale=127.5, range=(-1.0, 1.0))
    (tmp_path / "kind").mkdir()
    for use in (
        lambda: predict(wrong, [tmp_path / "any.png"], TARGETS, threads=1),
        lambda: evaluate(wrong, tmp_path, TARGETS, threads=1),
    ):
        with pytest.raises(ArtifactError, match=r"the input contract is wrong.*scaled twice"):
            use()


def test_a_model_that_is_no_onnx(plain: dict[str, Artifact], tmp_path: Path) -> None:
    from mbexport.errors import ArtifactError

    artifact = plain["small"]
    broken = write_artifact(
        tmp_path, artifact.manifest, {"model.onnx": b"\xff" * 100}, read_reference(artifact), name="broken"
    )
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be read"):
        validate(read_artifact(broken.path), TARGETS)


def test_a_tensor_of_another_size(tmp_path: Path) -> None:
    import keras

    from mbexport.errors import SpecError

    dynamic = msgspec.structs.replace(V3, height=None, width=None)
    for spec in (V3, dynamic):
        with pytest.raises(SpecError, match="the input tensor is 96x96 pixels"):
            build(spec, input_tensor=keras.Input((96, 96, 3)), out=tmp_path)


def test_references_of_older_artifacts_still_tell_a_wrong_contract(plain: dict[str, Artifact]) -> None:
    """They were made of texture alone."""
    artifact = plain["small"]
    contract, stored = artifact.manifest.input, read_reference(artifact)
    older = pictures(REFERENCE_PICTURES, *contract.size_of(stored.inputs["input"]), REFERENCE_SEED).astype(np.float32)
    reference = replace(stored, inputs={"input": older})
    assert contract_fault(contract, reference) is None
    wrong = msgspec.structs.replace(contract, colour_order="BGR")
    assert "colours come as BGR" in str(contract_fault(wrong, reference))


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_reference_of_any_length_is_looked_at(plain: dict[str, Artifact], count: int) -> None:
    artifact = plain["small"]
    contract, stored = artifact.manifest.input, read_reference(artifact)
    shown = reference_pictures(*contract.size_of(stored.inputs["input"]), max(count, 1))[:count].astype(np.float32)
    wrong = msgspec.structs.replace(contract, colour_order="BGR")
    reference = replace(stored, inputs={"input": shown})
    assert contract_fault(contract, reference) is None
    assert (contract_fault(wrong, reference) is not None) == (count > 0)
