"""timm's state dicts against networks that Keras builds; what timm calls things is written down here a second time."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mbexport.errors import MissingPackageError, SpecError, WeightsError
from mbexport.spec import ModelSpec
from mbexport.weights import timm
from tests.torch_files import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    StateDict = dict[str, NDArray[Any]]

SIDE = 32
# timm's stages as it spells them: kernel, stride, expansion, channels, se where there is squeeze-excite.
LARGE = [
    ["k3 e1 c16"],
    ["k3 e4 c24", "k3 e3 c24"],
    ["k5 e3 c40 se", "k5 e3 c40 se", "k5 e3 c40 se"],
    ["k3 e6 c80", "k3 e2.5 c80", "k3 e2.3 c80", "k3 e2.3 c80"],
    ["k3 e6 c112 se", "k3 e6 c112 se"],
    ["k5 e6 c160 se", "k5 e6 c160 se", "k5 e6 c160 se"],
]
SMALL = [
    ["k3 e1 c16 se"],
    ["k3 e4.5 c24", "k3 e3.67 c24"],
    ["k5 e4 c40 se", "k5 e6 c40 se", "k5 e6 c40 se"],
    ["k5 e3 c48 se", "k5 e3 c48 se"],
    ["k5 e6 c96 se", "k5 e6 c96 se", "k5 e6 c96 se"],
]
HEADS = {"large": (LARGE, 960, 1280), "small": (SMALL, 576, 1024)}
SPECS = {
    "tf_mobilenetv3_large_075": ModelSpec(variant="large", alpha=0.75, height=SIDE, width=SIDE),
    "tf_mobilenetv3_large_100": ModelSpec(variant="large", height=SIDE, width=SIDE),
    "tf_mobilenetv3_large_minimal_100": ModelSpec(variant="large", minimalistic=True, height=SIDE, width=SIDE),
    "tf_mobilenetv3_small_075": ModelSpec(variant="small", alpha=0.75, height=SIDE, width=SIDE),
    "tf_mobilenetv3_small_100": ModelSpec(variant="small", height=SIDE, width=SIDE),
    "tf_mobilenetv3_small_minimal_100": ModelSpec(variant="small", minimalistic=True, height=SIDE, width=SIDE),
}
SMALLEST = SPECS["tf_mobilenetv3_small_minimal_100"]


def to_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class Network:
    """Collects tensors in the order in which timm registers its modules."""

    def __init__(self) -> None:
        self.tensors: StateDict = {}

    def add(self, name: str, *shape: int) -> None:
        rng = np.random.default_rng(zlib.crc32(name.encode()))  # so that no two tensors are alike
        self.tensors[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)

    def norm(self, name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            self.add(f"{name}.{part}", channels)
        self.tensors[f"{name}.num_batches_tracked"] = np.array(9, np.int64)

    def gates(self, block: str, channels: int) -> None:
        squeezed = to_8(channels / 4)
        for name, shape in (("conv_reduce", (squeezed, channels)), ("conv_expand", (channels, squeezed))):
            self.add(f"{block}.se.{name}.weight", *shape, 1, 1)
            self.add(f"{block}.se.{name}.bias", shape[0])


def state_dict(name: str, classes: int = 1000) -> StateDict:
    """Names and shapes of ``timm.create_model(name).state_dict()``."""
    variant, minimal = name.split("_")[2], "minimal" in name
    alpha = 0.75 if name.endswith("075") else 1.0
    stages, last, features = HEADS[variant]
    network = Network()
    channels = to_8(16 * alpha)
    network.add("conv_stem.weight", channels, 3, 3, 3)
    network.norm("bn1", channels)
    for stage, blocks in enumerate(stages):
        for index, text in enumerate(blocks):
            place = f"blocks.{stage}.{index}"
            kernel, expansion, filters, *gated = text.split()
            side = 3 if minimal else int(kernel[1:])
            inner, out = to_8(channels * float(expansion[1:])), to_8(int(filters[1:]) * alpha)
            norms = iter(("bn1", "bn2", "bn3"))
            if stage:
                network.add(f"{place}.conv_pw.weight", inner, channels, 1, 1)
                network.norm(f"{place}.{next(norms)}", inner)
            network.add(f"{place}.conv_dw.weight", inner, 1, side, side)
            network.norm(f"{place}.{next(norms)}", inner)
            if gated and not minimal:
                network.gates(place, inner)
            network.add(f"{place}.{'conv_pwl' if stage else 'conv_pw'}.weight", out, inner, 1, 1)
            network.norm(f"{place}.{next(norms)}", out)
            channels = out
    network.add(f"blocks.{len(stages)}.0.conv.weight", to_8(last * alpha), channels, 1, 1)
    network.norm(f"blocks.{len(stages)}.0.bn1", to_8(last * alpha))
    network.add("conv_head.weight", features, to_8(last * alpha), 1, 1)
    network.add("conv_head.bias", features)
    network.add("classifier.weight", classes, features)
    network.add("classifier.bias", classes)
    return network.tensors


def in_keras_axes(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 4:
        axes = "ciyx->yxci" if "conv_dw" in name else "oiyx->yxio"
        return np.asarray(np.einsum(axes, array))
    return array.T.reshape(1, 1, *array.T.shape) if array.ndim == 2 else array


def keras_model(spec: ModelSpec, **options: Any) -> Any:
    import keras

    build = keras.applications.MobileNetV3Large if spec.variant == "large" else keras.applications.MobileNetV3Small
    chosen = {
        "input_shape": (spec.height, spec.width, 3),
        "alpha": spec.alpha,
        "minimalistic": spec.minimalistic,
        "include_top": spec.include_top,
        "classes": spec.classes,
        "classifier_activation": None,
        "weights": None,
    }
    return build(**chosen | options)


def assert_in_order(model: Any, tensors: StateDict) -> None:
    """Keras's variables one by one are timm's tensors one by one: both libraries list layers in their order."""
    expected = [(name, array) for name, array in tensors.items() if not name.endswith("num_batches_tracked")]
    for variable, (name, array) in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(variable, in_keras_axes(name, array), err_msg=name)


@pytest.mark.parametrize("name", SPECS)
def test_every_tensor_of_all_six_lands_in_its_place(tmp_path: Path, name: str) -> None:
    tensors = state_dict(name)
    path = tmp_path / f"{name}.safetensors"
    save_file(tensors, path)
    model = keras_model(SPECS[name])
    origin = timm.load(model, SPECS[name], str(path))
    assert_in_order(model, tensors)
    assert (origin.kind, origin.file, origin.note) == ("timm", path.name, None)
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_pth_lands_where_safetensors_does(tmp_path: Path) -> None:
    tensors = state_dict("tf_mobilenetv3_small_minimal_100")
    model = keras_model(SMALLEST)
    timm.load(model, SMALLEST, str(save(tmp_path / "x.pth", tensors)))
    assert_in_order(model, tensors)


@pytest.mark.parametrize(
    ("file", "spec"),
    [
        ("tf_mobilenetv3_small_075.safetensors", ModelSpec(variant="small", alpha=0.75)),
        ("tf_mobilenetv3_small_minimal_100.safetensors", ModelSpec(variant="small", minimalistic=True)),
        ("tf_mobilenetv3_small_minimal_100.pth", ModelSpec(variant="small", minimalistic=True)),
    ],
)
def test_logits_are_timms_own(real_data: Path, file: str, spec: ModelSpec) -> None:
    path = real_data / "timm" / file
    model = keras_model(spec)
    timm.load(model, spec, str(path))
    with np.load(path.with_name(f"{path.stem}.reference.npz")) as reference:
        pictures, logits = reference["images_uint8_nhwc"], reference["logits"]
    found = np.asarray(model(pictures.astype(np.float32), training=False))
    assert np.linalg.norm(found - logits) < 1e-4 * np.linalg.norm(logits)


def write_bfloat16(path: Path, tensors: StateDict) -> None:
    """By hand: safetensors' NumPy writer knows no bfloat16. Exact where float32's lower half is zero."""
    header, data = {}, b""
    for name, array in tensors.items():
        upper = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [len(data), len(data) + len(upper)]}
        data += upper
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_bfloat16_and_half_become_float32(tmp_path: Path) -> None:
    tensors = state_dict("tf_mobilenetv3_small_minimal_100")
    exact = {name: np.round(array * 64) / 64 for name, array in tensors.items() if array.ndim}
    save_file({name: array.astype(np.float16) for name, array in exact.items()}, tmp_path / "half.safetensors")
    write_bfloat16(tmp_path / "bf16.safetensors", exact)
    for file in ("half", "bf16"):
        model = keras_model(SMALLEST)
        timm.load(model, SMALLEST, str(tmp_path / f"{file}.safetensors"))
        assert_in_order(model, exact)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(state_dict("tf_mobilenetv3_small_minimal_100"), path)
    return path


@pytest.fixture(scope="module")
def untouched() -> Any:
    """A network that no file here fits, so it stays as it is built."""
    return keras_model(SMALLEST)


def test_without_top(small_file: Path) -> None:
    spec = ModelSpec(variant="small", minimalistic=True, height=SIDE, width=SIDE, include_top=False)
    model = keras_model(spec)
    timm.load(model, spec, str(small_file))
    top = ("conv_head", "classifier")
    tensors = state_dict("tf_mobilenetv3_small_minimal_100")
    assert_in_order(model, {key: array for key, array in tensors.items() if not key.startswith(top)})


def test_fine_tuned_classes(tmp_path: Path) -> None:
    tensors = state_dict("tf_mobilenetv3_small_minimal_100", classes=7)
    spec = ModelSpec(variant="small", minimalistic=True, height=SIDE, width=SIDE, classes=7)
    model = keras_model(spec)
    save_file(tensors, tmp_path / "x.safetensors")
    timm.load(model, spec, str(tmp_path / "x.safetensors"))
    assert_in_order(model, tensors)


def test_users_layers_in_front_stay_as_they_are(small_file: Path) -> None:
    import keras

    picture = keras.Input((SIDE, SIDE, 3))
    own = keras.layers.BatchNormalization(name="own")
    model = keras_model(SMALLEST, input_tensor=own(picture))
    before = own.get_weights()
    timm.load(model, SMALLEST, str(small_file))
    for variable, old in zip(own.get_weights(), before, strict=True):
        np.testing.assert_array_equal(variable, old)
    np.testing.assert_array_equal(
        model.get_layer("conv").get_weights()[0],
        in_keras_axes("", state_dict("tf_mobilenetv3_small_minimal_100")["conv_stem.weight"]),
    )


def without(*parts: str) -> Callable[[StateDict], StateDict]:
    return lambda tensors: {name: array for name, array in tensors.items() if not name.startswith(parts)}


def with_nan(tensors: StateDict) -> StateDict:
    changed = tensors["blocks.1.0.bn2.running_var"].copy()
    changed[3] = np.nan
    return tensors | {"blocks.1.0.bn2.running_var": changed}


@pytest.mark.parametrize(
    ("change", "layer", "details"),
    [
        (lambda _: state_dict("tf_mobilenetv3_small_100"), "expanded_conv_3_depthwise", ("3x3x96x1", "5x5x96x1")),
        (
            lambda _: state_dict("tf_mobilenetv3_large_minimal_100"),
            "expanded_conv_1_expand",
            ("1x1x16x72", "blocks.1.0.conv_pw has 1x1x16x64", "--variant"),
        ),
        (
            lambda _: state_dict("tf_mobilenetv3_small_minimal_100", classes=7),
            "logits",
            ("1x1x1024x1000, 1000", "classifier has 1x1x1024x7, 7", "--classes 7"),
        ),
        (without("classifier"), "logits", ("classifier has none", "--no-include-top")),
        (without("blocks.2.0.bn2.running_mean"), "expanded_conv_3_depthwise_bn", ("96, 96, 96, 96", "has 96, 96, 96;")),
        (with_nan, "blocks.1.0.bn2", ("not finite",)),
        (
            lambda tensors: tensors | {"norm_head.weight": np.ones(4, np.float32)},
            "holds norm_head.weight",
            ("which this network does not have",),
        ),
        (lambda tensors: tensors | {"bn1.weight": np.ones(16, np.int32)}, "bn1", ("not finite",)),
    ],
)
def test_weights_of_another_network(
    tmp_path: Path, untouched: Any, change: Callable[[StateDict], StateDict], layer: str, details: tuple[str, ...]
) -> None:
    save_file(change(state_dict("tf_mobilenetv3_small_minimal_100")), tmp_path / "x.safetensors")
    before = untouched.get_weights()
    with pytest.raises(WeightsError) as caught:
        timm.load(untouched, SMALLEST, str(tmp_path / "x.safetensors"))
    for part in (layer, *details):
        assert part in str(caught.value)
    for variable, old in zip(untouched.get_weights(), before, strict=True):
        np.testing.assert_array_equal(variable, old)  # nothing half loaded


def test_weights_of_another_alpha(tmp_path: Path) -> None:
    spec = SPECS["tf_mobilenetv3_small_100"]
    save_file(state_dict("tf_mobilenetv3_small_075"), tmp_path / "x.safetensors")
    with pytest.raises(
        WeightsError, match=r"layer expanded_conv_3_project has shapes 1x1x96x40, .* has 1x1x96x32; .*alpha"
    ):
        timm.load(keras_model(spec), spec, str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("length", [4, 5000, -100])
def test_truncated_safetensors(small_file: Path, tmp_path: Path, untouched: Any, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(small_file.read_bytes()[:length])
    with pytest.raises(WeightsError, match="is damaged or truncated"):
        timm.load(untouched, SMALLEST, str(path))


def test_type_that_no_mobilenet_has(tmp_path: Path, untouched: Any) -> None:
    save_file({"conv_stem.weight": np.ones((16, 3, 3, 3), np.complex64)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="holds numbers of type C64, expected one of F64, F32"):
        timm.load(untouched, SMALLEST, str(tmp_path / "x.safetensors"))


def test_safetensors_not_installed(small_file: Path, untouched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingPackageError, match=r"needs safetensors .*pip install 'mbexport\[build\]'"):
        timm.load(untouched, SMALLEST, str(small_file))


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(variant="v2"),
        ModelSpec(variant="small", alpha=0.5),
        ModelSpec(variant="large", alpha=0.75, minimalistic=True),
    ],
)
def test_networks_that_timm_does_not_have(small_file: Path, spec: ModelSpec) -> None:
    with pytest.raises(SpecError) as caught:
        timm.check(str(small_file), spec)
    assert all(name in str(caught.value) for name in SPECS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.pth", None, "does not exist"),
        ("empty.pth", b"", "is empty"),
        ("x.h5", b"x", "must be one of .safetensors, .pth"),
        ("mobilenetv3_large_100_ra-f55367f5.pth", b"x", "timm's mobilenetv3_large_100, which pads otherwise"),
    ],
)
def test_files_that_cannot_be_it(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        timm.check(str(path), SMALLEST)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a file"):
        timm.check(str(tmp_path), SMALLEST)


def test_check_answers_the_path(small_file: Path) -> None:
    assert timm.check(str(small_file), SMALLEST) == small_file
