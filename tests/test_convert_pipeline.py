"""``pipeline.convert``: users' own networks from a file to a checked artifact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from mbexport.artifact import read_artifact, read_labels, read_reference
from mbexport.compare import sqnr_db
from mbexport.errors import ConversionError, InputError, OutputError
from mbexport.pictures import pictures
from mbexport.pipeline import convert
from mbexport.spec import ExportOptions
from mbexport.user_subject import rule_of_range, slug_of
from mbexport.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.artifact import Artifact

SIDE_PX, CLASSES = 64, 5
TARGETS = ["ort:cpu", "openvino:cpu"]


def backbone(**options: Any) -> Any:
    """Calibrated, so that its features tell pictures apart."""
    from mbexport.build import build_model
    from mbexport.spec import ModelSpec

    spec = ModelSpec(variant="small", alpha=0.35, height=SIDE_PX, width=SIDE_PX, include_top=False, **options)
    return build_model(spec).model


def transfer(**outputs: Any) -> Any:
    """Augmentation, backbone, pooling, dropout, one dense head a keyword: its activation."""
    import keras
    from keras import layers

    inner = backbone()
    inner.trainable = False
    pictures_in = keras.Input((SIDE_PX, SIDE_PX, 3))
    x = layers.RandomFlip("horizontal")(pictures_in)
    x = layers.RandomRotation(0.1)(x)
    x = inner(x, training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    heads = [layers.Dense(CLASSES, activation=activation, name=name)(x) for name, activation in outputs.items()]
    return keras.Model(pictures_in, heads if len(heads) > 1 else heads[0])


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    import keras

    keras.utils.set_random_seed(22)  # of 60 draws the one whose five classes leave most to chance on two pictures
    model = transfer(flower="softmax")
    path = tmp_path_factory.mktemp("models") / "flowers.keras"
    model.save(path)
    return model, path


def assert_passes(artifact: Artifact) -> None:
    report = validate(read_artifact(artifact.path), TARGETS)
    assert report.passed, report.rows


def test_transfer_learning_network(flowers: tuple[Any, Path], tmp_path: Path) -> None:
    import onnxruntime

    model, path = flowers
    result = convert(path, out=tmp_path)
    artifact = result.artifact
    assert artifact.path == tmp_path / "flowers"
    manifest = artifact.manifest
    assert manifest.spec is None
    assert manifest.weights.kind == "keras-model"
    assert [(output.name, output.kind) for output in manifest.outputs] == [("flower", "probabilities")]
    assert manifest.input.range == (0.0, 255.0)  # V3 rescales inside
    assert manifest.graph.ops["Transpose"] == 1
    assert manifest.graph.ops["HardSwish"] == 18  # V3 Small without its top: Howard et al. 2019, table 2
    shown = pictures(3, SIDE_PX, SIDE_PX, seed=4).astype(np.float32)
    session = onnxruntime.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": shown})
    assert sqnr_db(np.asarray(model(shown, training=False)), found) > 90
    assert_passes(artifact)


def test_several_outputs_labels_and_golden_pictures(tmp_path: Path) -> None:
    from PIL import Image

    transfer(flower="softmax", season=None, ripe="sigmoid").save(tmp_path / "garden.keras")
    (tmp_path / "labels.txt").write_text("\n".join("abcde"))
    (tmp_path / "golden").mkdir()
    Image.fromarray(pictures(1, 90, 80, 3)[0]).save(tmp_path / "golden" / "one.jpg")
    artifact = convert(
        tmp_path / "garden.keras",
        name="greenhouse",
        labels=tmp_path / "labels.txt",
        golden=tmp_path / "golden",
        export=ExportOptions(layout="nchw", input_type="uint8", batch=2),
        out=tmp_path / "out",
    ).artifact
    assert artifact.path.name == "greenhouse"
    kinds = {output.name: output.kind for output in artifact.manifest.outputs}
    assert kinds == {"flower": "probabilities", "season": "logits", "ripe": "features"}
    assert read_labels(artifact) is not None
    assert len(read_reference(artifact).golden) == 1
    assert_passes(artifact)


def test_without_labels_plain_numbers_are_features(tmp_path: Path) -> None:
    transfer(season=None).save(tmp_path / "plain.keras")
    artifact = convert(tmp_path / "plain.keras", out=tmp_path).artifact
    assert [output.kind for output in artifact.manifest.outputs] == ["features"]


SCALINGS = {
    "none": (None, (-1.0, 1.0)),
    "to 0..1": ({"scale": 1 / 255}, (0.0, 255.0)),
    "to -1..1": ({"scale": 1 / 127.5, "offset": -1.0}, (0.0, 255.0)),
    "from 0..1": ({"scale": 2.0, "offset": -1.0}, (0.0, 1.0)),
}


@pytest.mark.parametrize("name", [*SCALINGS, "per channel"])
def test_the_range_is_read_off_the_graph(name: str, tmp_path: Path) -> None:
    import keras
    from keras import layers

    layer, expected = SCALINGS.get(name, (None, (0.0, 255.0)))
    stack: list[Any] = [keras.Input((SIDE_PX, SIDE_PX, 3))]
    if layer is not None:
        stack.append(layers.Rescaling(**layer))
    if name == "per channel":  # ImageNet's means and deviations, for 0..255
        stack.append(layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3412.0, 3260.0, 3290.0]))
    model = keras.Sequential([*stack, backbone(include_preprocessing=False), layers.GlobalAveragePooling2D()])
    model.save(tmp_path / "scaled.keras")
    result = convert(tmp_path / "scaled.keras", out=tmp_path)
    assert result.artifact.manifest.input.range == expected
    assert any("--input-range" in note for note in result.notes) == (name == "none")
    assert_passes(result.artifact)


def test_a_range_that_is_given_counts(tmp_path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((SIDE_PX, SIDE_PX, 3)), backbone(include_preprocessing=False)]).save(
        tmp_path / "plain.keras"
    )
    result = convert(tmp_path / "plain.keras", input_range=(0.0, 1.0), out=tmp_path)
    contract = result.artifact.manifest.input
    assert (contract.range, contract.mean, contract.scale) == ((0.0, 1.0), 0.0, 255.0)
    assert result.notes == ()


@pytest.mark.parametrize("labels", ["a\nb\nc", "a\na\nb\nc\nd", "", "[1, 2]", "{}"])
def test_labels_that_do_not_fit(flowers: tuple[Any, Path], labels: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text(labels)
    with pytest.raises(InputError, match="label"):
        convert(flowers[1], labels=tmp_path / "labels", out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_refusals_before_anything_is_loaded(flowers: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="that rise"):
        convert(flowers[1], input_range=(1.0, -1.0), out=tmp_path)
    with pytest.raises(InputError, match="--name"):
        convert(flowers[1], name="../elsewhere", out=tmp_path)
    with pytest.raises(InputError):
        convert(tmp_path / "absent.keras", out=tmp_path)
    with pytest.raises(InputError, match="holds no pictures"):
        convert(flowers[1], golden=tmp_path, out=tmp_path)
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "petals.txt").write_text("mine")
    with pytest.raises(OutputError, match="no part of an artifact"):
        convert(flowers[1], out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flowers"]


def test_names(tmp_path: Path) -> None:
    assert slug_of(tmp_path / "My net (2).keras", None) == "My_net_2"
    assert slug_of(tmp_path / "..." / "saved", None) == "saved"
    assert slug_of(tmp_path / "x.h5", "flowers-1.0") == "flowers-1.0"


def test_ranges() -> None:
    assert rule_of_range((-1.0, 1.0)).apply(np.array([0, 255], np.uint8)).tolist() == [-1.0, 1.0]
    assert rule_of_range((0.0, 1.0)).apply(np.array([0, 255], np.uint8)).tolist() == [0.0, 1.0]


def test_nodes_are_named_after_the_layers_inside(flowers: tuple[Any, Path], tmp_path: Path) -> None:
    artifact = convert(flowers[1], out=tmp_path).artifact
    model = onnx.load(artifact.path / "model.onnx")
    layers = {node.name.rpartition("/")[0] for node in model.graph.node}
    assert any(layer.endswith("expanded_conv_depthwise") for layer in layers)
    assert "flower" in layers
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["mbexport.spec"] is None


def test_another_network_is_allowed_and_said_to_be_outside_the_grid(tmp_path: Path) -> None:
    import keras
    from keras import layers

    stack = [
        keras.Input((32, 32, 3)),
        layers.Rescaling(1 / 127.5, -1.0),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(
            1000, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=1)
        ),
    ]
    keras.Sequential(stack).save(tmp_path / "own.keras")
    result = convert(tmp_path / "own.keras", out=tmp_path)
    assert any("outside the tested grid" in note for note in result.notes)
    labels = read_labels(result.artifact)
    assert labels is not None  # 1000 classes are ImageNet's
    assert (labels[1].id, labels[1].name) == ("n01443537", "goldfish")
    assert_passes(result.artifact)


def test_a_mobilenet_is_inside_the_grid(flowers: tuple[Any, Path], tmp_path: Path) -> None:
    assert convert(flowers[1], out=tmp_path).notes == ()


def in_front(*stack: Any, inner: Any = None, shape: tuple[int, ...] = (SIDE_PX, SIDE_PX, 3)) -> Any:
    """Layers, or functions of a tensor, in front of a backbone; then pooling and a softmax."""
    import keras
    from keras import layers

    x = pictures_in = keras.Input(shape)
    for layer in (*stack, inner or backbone()):
        x = layer(x)
    x = layers.Dense(CLASSES, activation="softmax", name="kind")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(pictures_in, x)


def test_layers_that_keep_the_range_are_passed_over(tmp_path: Path) -> None:
    from keras import layers, ops

    model = in_front(
        layers.Resizing(SIDE_PX + 8, SIDE_PX + 8),
        layers.CenterCrop(SIDE_PX - 2, SIDE_PX - 2),
        layers.ZeroPadding2D(1),
        lambda x: ops.clip(x, 0, 255),
        shape=(48, 80, 3),
    )
    model.save(tmp_path / "cropped.keras")
    result = convert(tmp_path / "cropped.keras", out=tmp_path)
    assert result.artifact.manifest.input.range == (0.0, 255.0)  # V3's Rescaling comes behind them
    assert result.notes == ()


def test_what_resizes_is_held_to_the_same_limit(tmp_path: Path) -> None:
    """64/120 is no float32, and every engine rounds it: Keras, which multiplies by 120/64, does not."""
    from keras import layers

    in_front(layers.Resizing(SIDE_PX, SIDE_PX), shape=(120, 120, 3)).save(tmp_path / "larger.keras")
    artifact = convert(tmp_path / "larger.keras", out=tmp_path).artifact
    for row in validate(artifact, TARGETS).rows:
        assert row.passed, row.reason
        if row.mode == "parity":
            assert row.threshold_origin.startswith("12 dB under Keras's own float32")


def test_a_network_whose_pictures_depend_on_each_other(tmp_path: Path) -> None:
    """Keras's own export of a network with a Resizing layer; where it is mended, the error may name it no more."""
    from keras import layers

    in_front(layers.Resizing(SIDE_PX, SIDE_PX), shape=(120, 120, 3)).export(tmp_path / "exported", verbose=False)
    with pytest.raises(ConversionError, match=r"depends on the others of its batch .* save the network as \.keras"):
        convert(tmp_path / "exported", input_range=(0, 255), out=tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_grey_pictures_as_three_channels(tmp_path: Path) -> None:
    from keras import layers

    in_front(lambda x: layers.Concatenate()([x, x, x]), shape=(SIDE_PX, SIDE_PX, 1)).save(tmp_path / "grey.keras")
    contract = convert(tmp_path / "grey.keras", out=tmp_path).artifact.manifest.input
    assert (contract.range, contract.colour_order, contract.shape[-1]) == ((0.0, 255.0), "grey", 1)


def unknown(name: str) -> Any:
    from keras import layers

    plain = backbone(include_preprocessing=False)
    fronts: dict[str, tuple[Any, ...]] = {
        "batch norm": (layers.BatchNormalization(),),
        "tanh": (layers.Rescaling(1 / 127.5, -1.0), layers.Activation("tanh")),
        "caffe": (layers.Normalization(mean=[103.9, 116.8, 123.7], variance=[1.0, 1.0, 1.0]),),
        "either": (layers.Normalization(mean=-0.1, variance=0.25),),
    }
    return in_front(*fronts[name], inner=plain)


@pytest.mark.parametrize("name", ["batch norm", "tanh", "caffe", "either"])
def test_a_range_that_cannot_be_told_is_asked_for(name: str, tmp_path: Path) -> None:
    unknown(name).save(tmp_path / "unknown.keras")
    with pytest.raises(InputError, match="--input-range"):
        convert(tmp_path / "unknown.keras", out=tmp_path / "out")
    contract = convert(tmp_path / "unknown.keras", input_range=(0.0, 255.0), out=tmp_path).artifact.manifest.input
    assert contract.range == (0.0, 255.0)


def test_a_scaling_too_many_is_refused(tmp_path: Path) -> None:
    from keras import layers

    in_front(layers.Rescaling(1 / 127.5, -1.0)).save(tmp_path / "twice.keras")
    with pytest.raises(InputError, match=r"scales its pictures twice.*-1\.01\.\.-0\.99"):
        convert(tmp_path / "twice.keras", out=tmp_path / "out")


@pytest.mark.parametrize("bounds", [(float("-inf"), 1.0), (0.0, float("inf")), (0.0, 1e-320), (float("nan"), 1.0)])
def test_ranges_without_end(bounds: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="finite numbers that rise"):
        rule_of_range(bounds)


def test_labels_are_for_the_first_output_that_classifies(tmp_path: Path) -> None:
    transfer(flower="softmax").save(tmp_path / "one.keras")
    (tmp_path / "seven.txt").write_text("\n".join("abcdefg"))
    with pytest.raises(InputError, match="7 labels were given, and the network has 5 classes"):
        convert(tmp_path / "one.keras", labels=tmp_path / "seven.txt", out=tmp_path / "out")
