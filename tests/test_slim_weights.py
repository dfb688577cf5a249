"""Checkpoints with TF-slim's own variable names, written here by TensorFlow, into networks that Keras builds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbexport.errors import WeightsError
from mbexport.spec import ModelSpec
from mbexport.weights import slim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Variables = dict[str, NDArray[Any]]

SIDE = 32
SPECS = {
    "v2": ModelSpec(variant="v2", alpha=0.35, height=SIDE, width=SIDE),
    "small": ModelSpec(variant="small", alpha=0.35, height=SIDE, width=SIDE),
    "large": ModelSpec(variant="large", alpha=0.35, height=SIDE, width=SIDE),
    "minimalistic": ModelSpec(variant="small", minimalistic=True, alpha=0.35, height=SIDE, width=SIDE),
}
GATED = {"v2": (), "small": (0, 3, 4, 5, 6, 7, 8, 9, 10), "large": (3, 4, 5, 10, 11, 12, 13, 14), "minimalistic": ()}
"""Blocks with squeeze-excite."""
BLOCKS = {"v2": 17, "small": 11, "large": 15, "minimalistic": 11}


def conv(name: str, *, norm: bool = True, weights: str = "weights") -> Iterator[str]:
    yield f"{name}/{weights}"
    yield from (f"{name}/BatchNorm/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance") if norm)
    yield from (f"{name}/{part}" for part in ("biases",) if not norm)


def variable_names(network: str) -> Iterator[str]:
    """In the order in which research/slim makes the layers."""
    scope = "MobilenetV2" if network == "v2" else "MobilenetV3"
    yield from conv(f"{scope}/Conv")
    for number in range(BLOCKS[network]):
        block = f"{scope}/expanded_conv_{number}" if number else f"{scope}/expanded_conv"
        if number:
            yield from conv(f"{block}/expand")
        yield from conv(f"{block}/depthwise", weights="depthwise_weights")
        if number in GATED[network]:
            yield from conv(f"{block}/squeeze_excite/Conv", norm=False)
            yield from conv(f"{block}/squeeze_excite/Conv_1", norm=False)
        yield from conv(f"{block}/project")
    yield from conv(f"{scope}/Conv_1")
    if network != "v2":
        yield from conv(f"{scope}/Conv_2", norm=False)
    yield from conv(f"{scope}/Logits/Conv2d_1c_1x1", norm=False)


def keras_model(spec: ModelSpec, **options: Any) -> Any:
    import keras

    build = {
        "v2": keras.applications.MobileNetV2,
        "small": keras.applications.MobileNetV3Small,
        "large": keras.applications.MobileNetV3Large,
    }[spec.variant]
    options |= {"minimalistic": spec.minimalistic} if spec.is_v3 else {}
    return build(
        input_shape=(spec.height, spec.width, 3),
        alpha=spec.alpha,
        include_top=spec.include_top,
        classes=spec.classes,
        weights=None,
        **options,
    )


def numbers(model: Any) -> list[NDArray[np.float32]]:
    """Arrays of the shapes of Keras's variables, no two alike. Keras lists layers in TF-slim's order."""
    rng = np.random.default_rng(0)
    return [rng.uniform(0.5, 1.5, variable.shape).astype(np.float32) for variable in model.weights]


def checkpoint_variables(network: str, arrays: list[NDArray[np.float32]], background: float | None = -9.0) -> Variables:
    """What TF-slim would have saved: classifiers as 1x1 convolutions, with a background class in front."""
    variables = dict(zip(variable_names(network), arrays, strict=True))
    for name, array in variables.items():
        if "/Logits/" in name:
            whole = array.reshape(1, 1, *array.shape) if array.ndim == 2 else array
            front = [] if background is None else [np.full((*whole.shape[:-1], 1), background, np.float32)]
            variables[name] = np.concatenate([*front, whole], axis=-1)
    return variables


def save(prefix: Path, variables: Variables) -> str:
    import tensorflow as tf

    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(variables),
            shape_and_slices=[""] * len(variables),
            tensors=list(variables.values()),
        )
    return str(prefix)


def assert_weights(model: Any, expected: list[NDArray[np.float32]]) -> None:
    for variable, array in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), array, err_msg=variable.path)


@pytest.mark.parametrize("network", SPECS)
def test_every_variable_lands_in_its_place(tmp_path: Path, network: str) -> None:
    model = keras_model(SPECS[network])
    expected = numbers(model)
    prefix = save(tmp_path / "model.ckpt-7", checkpoint_variables(network, expected))
    origin = slim.load(model, SPECS[network], prefix)
    assert_weights(model, expected)
    assert (origin.kind, origin.file) == ("slim", "model.ckpt-7")
    files = [tmp_path / "model.ckpt-7.index", tmp_path / "model.ckpt-7.data-00000-of-00001"]
    assert origin.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_moving_averages_are_preferred_and_slots_are_ignored(tmp_path: Path) -> None:
    """As training leaves it: some variables have no average, some nothing else, the optimizer's slots beside."""
    model = keras_model(SPECS["small"])
    expected = numbers(model)
    variables: Variables = {"global_step": np.array(7, np.int64)}
    for name, array in checkpoint_variables("small", expected).items():
        if "moving_mean" in name:
            variables[name] = array
        elif "moving_variance" in name:
            variables[f"{name}/ExponentialMovingAverage"] = array
        else:
            variables |= {name: array + 1, f"{name}/ExponentialMovingAverage": array, f"{name}/RMSProp": array * 0}
    slim.load(model, SPECS["small"], save(tmp_path / "model.ckpt", variables))
    assert_weights(model, expected)


@pytest.mark.parametrize("classes", [7, 1001])
def test_other_class_counts_have_no_background_to_drop(tmp_path: Path, classes: int) -> None:
    spec = ModelSpec(variant="v2", alpha=0.35, height=SIDE, width=SIDE, classes=classes)
    model = keras_model(spec)
    expected = numbers(model)
    slim.load(model, spec, save(tmp_path / "model.ckpt", checkpoint_variables("v2", expected, background=None)))
    assert_weights(model, expected)


@pytest.mark.parametrize("variant", ["v2", "small"])
def test_without_top(tmp_path: Path, variant: str) -> None:
    whole = numbers(keras_model(SPECS[variant]))
    prefix = save(tmp_path / "model.ckpt", checkpoint_variables(variant, whole))
    spec = ModelSpec(
        variant=SPECS[variant].variant, alpha=0.35, height=SIDE, width=SIDE, include_top=False, pooling="avg"
    )
    model = keras_model(spec)
    slim.load(model, spec, prefix)
    assert_weights(model, whole[: len(model.weights)])  # the top stands at the end


def test_users_layers_in_front_stay_as_they_are(tmp_path: Path, small: tuple[Any, Variables]) -> None:
    import keras

    own = keras.layers.BatchNormalization(name="own")
    model = keras_model(SPECS["small"], input_tensor=own(keras.Input((SIDE, SIDE, 3))))
    before = own.get_weights()
    slim.load(model, SPECS["small"], save(tmp_path / "model.ckpt", small[1]))
    for variable, old in zip(own.get_weights(), before, strict=True):
        np.testing.assert_array_equal(variable, old)
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], small[1]["MobilenetV3/Conv/weights"])


@pytest.fixture(scope="module")
def small() -> tuple[Any, Variables]:
    """A network that is never loaded into, and the variables that would fit it."""
    model = keras_model(SPECS["small"])
    return model, checkpoint_variables("small", numbers(model))


def without(part: str) -> Callable[[Variables], Variables]:
    return lambda variables: {name: array for name, array in variables.items() if part not in name}


def with_nan(variables: Variables) -> Variables:
    beta = "MobilenetV3/expanded_conv_2/expand/BatchNorm/beta"
    return variables | {beta: variables[beta] * np.nan}


def wider(variables: Variables) -> Variables:
    return variables | {"MobilenetV3/expanded_conv/project/weights": np.ones((1, 1, 16, 16), np.float32)}


def fewer_classes(variables: Variables) -> Variables:
    logits = "MobilenetV3/Logits/Conv2d_1c_1x1"
    return variables | {f"{logits}/weights": np.ones((1, 1, 1024, 5), np.float32), f"{logits}/biases": np.ones(5)}


@pytest.mark.parametrize(
    ("change", "details"),
    [
        (wider, ("layer expanded_conv_project has shapes 1x1x16x8", "expanded_conv/project has 1x1x16x16", "--alpha")),
        (without("squeeze_excite"), ("layer expanded_conv_squeeze_excite_conv ", "squeeze_excite/Conv has none")),
        (
            without("expanded_conv_10/depthwise/BatchNorm/moving_mean"),
            ("layer expanded_conv_10_depthwise_bn has shapes", "expanded_conv_10/depthwise/BatchNorm has"),
        ),
        (fewer_classes, ("layer logits", "1x1x1024x1000, 1000", "has 1x1x1024x5, 5", "--classes 5")),
        (without("/Logits/"), ("layer logits", "has none", "--no-include-top")),
        (with_nan, ("expanded_conv_2/expand/BatchNorm", "not finite")),
        (
            lambda variables: variables | {"MobilenetV3/expanded_conv_11/expand/weights": np.ones(3, np.float32)},
            ("it holds MobilenetV3/expanded_conv_11/expand/weights",),
        ),
        (
            lambda variables: {name.replace("V3", "V2"): array for name, array in variables.items()},
            ("holds no variable of MobilenetV3", "--variant"),
        ),
    ],
)
def test_checkpoint_of_another_network(
    tmp_path: Path, small: tuple[Any, Variables], change: Callable[[Variables], Variables], details: tuple[str, ...]
) -> None:
    model, variables = small
    before = model.get_weights()
    prefix = save(tmp_path / "model.ckpt", change(variables))
    with pytest.raises(WeightsError) as caught:
        slim.load(model, SPECS["small"], prefix)
    for part in details:
        assert part in str(caught.value)
    for variable, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(variable, old)


def cut(suffix: str, length: int) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        file = Path(f"{prefix}{suffix}")
        file.write_bytes(file.read_bytes()[:length])

    return damage


def flip(prefix: Path) -> None:
    file = Path(f"{prefix}.data-00000-of-00001")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DATA = ".data-00000-of-00001"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut(".index", 0), "is damaged or truncated"),
        (cut(".index", 300), "is damaged or truncated"),
        (cut(DATA, 0), "is damaged or truncated"),
        (cut(DATA, 1000), "is damaged or truncated"),
        (cut(DATA, -1), "is damaged or truncated"),
        (flip, "is damaged or truncated"),
        (lambda prefix: Path(f"{prefix}{DATA}").unlink(), "has no model.ckpt.data-00000-of-00001 beside its index"),
        (lambda prefix: Path(f"{prefix}.index").unlink(), "no checkpoint at "),
        (lambda prefix: Path(f"{prefix}.index").write_bytes(b"not a table" * 99), "does not end as an index does"),
    ],
)
def test_damaged_checkpoint(tmp_path: Path, small: tuple[Any, Variables], damage: Any, message: str) -> None:
    model, variables = small
    prefix = tmp_path / "model.ckpt"
    save(prefix, variables)
    damage(prefix)
    with pytest.raises(WeightsError, match=message):
        slim.load(model, SPECS["small"], str(prefix))


@pytest.mark.parametrize("suffix", [".index", DATA])
def test_one_file_instead_of_the_prefix(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(WeightsError, match=r"give what all its files begin with: slim:.*model\.ckpt$"):
        slim.check(f"{tmp_path}/model.ckpt{suffix}", SPECS["v2"])


def test_check_answers_the_files(tmp_path: Path, small: tuple[Any, Variables]) -> None:
    """Beside another checkpoint whose name begins alike."""
    _, variables = small
    for name in ("model[1].ckpt-2", "model[1].ckpt-22"):
        save(tmp_path / name, variables)
    files = [tmp_path / "model[1].ckpt-2.index", tmp_path / "model[1].ckpt-2.data-00000-of-00001"]
    assert slim.check(str(tmp_path / "model[1].ckpt-2"), SPECS["small"]) == files


def test_folder_of_the_same_name(tmp_path: Path, small: tuple[Any, Variables]) -> None:
    """TensorFlow would open the newest checkpoint inside, and what is written down would be this one's digest."""
    model, variables = small
    prefix = save(tmp_path / "model.ckpt", variables)
    Path(prefix).mkdir()
    save(Path(prefix) / "other", {name: array + 1 for name, array in variables.items()})
    (Path(prefix) / "checkpoint").write_text('model_checkpoint_path: "other"\n')
    with pytest.raises(WeightsError, match="shares its name with a folder"):
        slim.load(model, SPECS["small"], prefix)


def test_shapes_are_compared_before_any_number_is_read(tmp_path: Path, small: tuple[Any, Variables]) -> None:
    """With the numbers cut away, what does not fit is still said to be that, and not damage."""
    model, variables = small
    prefix = tmp_path / "model.ckpt"
    save(prefix, wider(variables))
    file = Path(f"{prefix}{DATA}")
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(WeightsError, match="layer expanded_conv_project has shapes 1x1x16x8"):
        slim.load(model, SPECS["small"], str(prefix))


@pytest.mark.parametrize("prefix", ["", "."])
def test_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="no checkpoint at"):
        slim.check(prefix, SPECS["v2"])
