"""Keras's ImageNet weights without the network: stand-in files in a cache of the test's own, a server of its own."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import h5py
import msgspec
import numpy as np
import pytest

from mbexport import pretrained, thresholds
from mbexport.build import build_model
from mbexport.errors import MissingDownloadError, SpecError, WeightsError
from mbexport.spec import ModelSpec
from mbexport.weights import imagenet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNED = imagenet.HDF5_SIGNATURE + bytes(1000)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "keras"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def serve(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, length: int) -> Iterator[list[str]]:
    """A server that answers so to whatever it is asked; the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(pretrained, "BASE_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


def keras_network(spec: ModelSpec) -> Any:
    """As Keras builds it with its ImageNet weights."""
    import keras

    constructors = {
        "v2": keras.applications.MobileNetV2,
        "large": keras.applications.MobileNetV3Large,
        "small": keras.applications.MobileNetV3Small,
    }
    return constructors[spec.variant](
        input_shape=(*spec.size, 3),
        alpha=spec.alpha,
        include_top=spec.include_top,
        weights="imagenet",
        classes=spec.classes,
        classifier_activation=spec.classifier_activation,
        **({"minimalistic": True} if spec.minimalistic else {}),
    )


@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(variant="v2"),
        ModelSpec(variant="v2", alpha=0.35, height=96, width=96),
        ModelSpec(variant="v2", alpha=1.3, height=160, width=160),
        ModelSpec(variant="large", alpha=0.75),
        ModelSpec(variant="small", alpha=1, height=192, width=192),
        ModelSpec(variant="small", minimalistic=True),
    ],
    ids=lambda spec: spec.slug,
)
def test_keras_asks_for_the_same_file(spec: ModelSpec, include_top: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's own constructor, stopped where it would download."""
    spec = msgspec.structs.replace(spec, include_top=include_top)
    from keras.src.utils import file_utils

    class AskedError(Exception):
        pass

    def get_file(name: str, url: str, *, cache_subdir: str, file_hash: str | None = None) -> None:
        raise AskedError(name, url, cache_subdir, file_hash)

    monkeypatch.setattr(file_utils, "get_file", get_file)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")  # V3 at 192
        with pytest.raises(AskedError) as asked:
            keras_network(spec)
    found = pretrained.checkpoint(spec)
    keras_hash = imagenet._keras_hash(found.file, include_top=spec.include_top)
    assert asked.value.args == (found.file, found.url, "models", keras_hash)
    assert (keras_hash is None) == (spec.variant == "v2")


NONE = {
    "v2 alpha": (ModelSpec(variant="v2", alpha=0.6), "0.35, 0.5, 0.75, 1.0, 1.3 or 1.4, not 0.6"),
    "large alpha": (ModelSpec(variant="large", alpha=0.5), "0.75 or 1.0, not 0.5"),
    "minimalistic alpha": (ModelSpec(variant="small", minimalistic=True, alpha=0.75), "alpha 1.0, not 0.75"),
    "v2 rows": (ModelSpec(variant="v2", height=100, width=100), "96, 128, 160, 192 or 224, not 100"),
    "v2 not square": (ModelSpec(variant="v2", height=96, width=128), "not 96x128"),
    "v2 hole": (ModelSpec(variant="v2", alpha=1.4, height=96, width=96), "never published at 96"),
    "classes": (ModelSpec(variant="v2", classes=10), "1000 classes, not 10"),
    "activation": (ModelSpec(variant="small", classifier_activation="sigmoid"), "softmax or none, not sigmoid"),
}


@pytest.mark.parametrize(("spec", "message"), NONE.values(), ids=NONE.keys())
@pytest.mark.usefixtures("no_network")
def test_what_has_no_weights_is_refused_before_any_download(spec: ModelSpec, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        imagenet.check(spec)
    with pytest.raises(SpecError, match=re.escape(message)):
        imagenet.fetch(spec)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "spec",
    [spec for name, (spec, _) in NONE.items() if name != "v2 hole"],
    ids=[name for name in NONE if name != "v2 hole"],
)
def test_keras_refuses_the_same(spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match=r"imagenet|pretrained"):
        keras_network(spec)


def test_other_activations_of_features_do_not_matter() -> None:
    for activation in ("softmax", "none", "linear"):
        imagenet.check(ModelSpec(variant="small", classifier_activation=activation))
    imagenet.check(ModelSpec(variant="v2", include_top=False, pooling="avg", height=100, width=180))


@pytest.mark.usefixtures("no_network")
def test_without_network_the_file_and_its_place_are_named(home: Path) -> None:
    spec = ModelSpec(variant="large", alpha=0.75, include_top=False)
    with pytest.raises(MissingDownloadError) as caught:
        imagenet.fetch(spec)
    message = str(caught.value)
    name = "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5"
    assert f"put it at {home / 'models' / name}" in message
    assert f"keras-applications/mobilenet_v3/{name}" in message
    assert "([Errno -2] Name or service not known)" in message
    assert len(message.splitlines()) <= 2
    assert caught.value.exit_code == 3
    assert not home.exists()


def test_fetching_needs_no_tensorflow(home: Path) -> None:
    """So that without a network it fails at once, not after the seconds that TensorFlow's import takes."""
    code = """
import socket, sys
def refuse(*_, **__): raise socket.gaierror(-2, "no network")
socket.getaddrinfo = refuse
from mbexport.errors import MissingDownloadError
from mbexport.spec import ModelSpec
from mbexport.weights import imagenet
try:
    imagenet.fetch(ModelSpec(variant="v2"))
except MissingDownloadError:
    print(sorted({"tensorflow", "keras"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert not home.exists()


def test_a_server_that_never_answers_is_not_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves, the connection is made, and then nothing."""
    monkeypatch.setattr(thresholds, "DOWNLOAD_ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr(pretrained, "BASE_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(MissingDownloadError, match=r"no answer within 0\.1 s"):
            imagenet.fetch(ModelSpec(variant="small"))
    assert not home.exists()


def test_download_goes_to_keras_cache_and_happens_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch, 200, SIGNED, len(SIGNED))
    asked = next(server)
    spec = ModelSpec(variant="v2", alpha=0.5, height=96, width=96)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_96.h5"
    assert imagenet.fetch(spec) == imagenet.fetch(spec) == home / "models" / name
    assert (home / "models" / name).read_bytes() == SIGNED
    assert asked == [f"/mobilenet_v2/{name}"]
    assert list(server) == []


@pytest.mark.parametrize(
    ("status", "body", "length", "message"),
    [
        (200, SIGNED[:500], len(SIGNED), "IncompleteRead"),
        (200, b"<html>log in first</html>", 25, "the answer is not an HDF5 file"),
        (404, b"", 0, "HTTP Error 404"),
    ],
    ids=["cut short", "captive portal", "not there"],
)
def test_what_cannot_be_weights_never_reaches_the_cache(
    status: int, body: bytes, length: int, message: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(monkeypatch, status, body, length)
    next(server)
    with pytest.raises(MissingDownloadError, match=message):
        imagenet.fetch(ModelSpec(variant="small"))
    assert list(server) == []
    assert not home.exists()


@pytest.mark.parametrize("include_top", [True, False])
def test_a_download_with_another_hash_never_reaches_the_cache(
    include_top: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(monkeypatch, 200, SIGNED, len(SIGNED))
    next(server)
    spec = ModelSpec(variant="small", include_top=include_top)
    digest = hashlib.md5(SIGNED, usedforsecurity=False).hexdigest()
    with pytest.raises(MissingDownloadError, match=f"not Keras's file: its md5 is {digest}, Keras expects ") as caught:
        imagenet.fetch(spec)
    assert list(server) == []
    assert len(str(caught.value).splitlines()) <= 2
    assert not home.exists()


def test_cache_is_keras_own(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import keras.src.backend.config as keras_config

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert imagenet.cache_path("x.h5") == tmp_path / ".keras" / "models" / "x.h5"
    monkeypatch.undo()
    assert str(imagenet.cache_path("x.h5").parents[1]) == keras_config.keras_home()


def legacy_file(path: Path, **options: Any) -> Any:
    """A stand-in in the layout that Keras 2 wrote, and that Keras's own ImageNet files have; the model it is of."""
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    chosen = {"input_shape": (224, 224, 3), "weights": None, **options}
    model = (keras.applications.MobileNetV3Small if "minimalistic" in chosen else keras.applications.MobileNetV2)(
        **chosen
    )
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return model


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.usefixtures("no_network")
def test_a_file_put_there_by_hand_is_loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.applications import mobilenet_v3

    path = home / "models" / "weights_mobilenet_v3_small_minimalistic_224_1.0_float.h5"
    theirs = legacy_file(path, minimalistic=True)
    hashes = {"small_minimalistic_224_1.0_float": (md5(path), "the one without the top")}
    monkeypatch.setattr(mobilenet_v3, "WEIGHTS_HASHES", hashes)
    built = build_model(ModelSpec(variant="small", minimalistic=True, classifier_activation="none"), "imagenet")
    for mine, wanted in zip(built.model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert built.origin.kind == "imagenet"
    assert built.origin.file == path.name
    assert built.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert built.origin.note is None


@pytest.mark.usefixtures("no_network")
def test_features_of_another_size_take_the_weights_of_224_and_say_so(home: Path) -> None:
    path = home / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    theirs = legacy_file(path, alpha=0.35, include_top=False)
    built = build_model(ModelSpec(variant="v2", alpha=0.35, include_top=False, height=64, width=96), "imagenet")
    for mine, wanted in zip(built.model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert built.origin.note == "trained at 224 pixels"


@pytest.mark.usefixtures("no_network")
def test_a_wrong_file_in_the_cache_is_named_with_both_digests(home: Path) -> None:
    path = home / "models" / "weights_mobilenet_v3_small_224_1.0_float.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(SIGNED)
    with pytest.raises(WeightsError) as caught:
        build_model(ModelSpec(variant="small"), "imagenet")
    assert str(path) in str(caught.value)
    assert md5(path) in str(caught.value)
    assert "8768d4c2e7dee89b9d02b2d03d65d862" in str(caught.value)  # of Keras's WEIGHTS_HASHES
    assert path.read_bytes() == SIGNED


@pytest.mark.usefixtures("no_network")
def test_a_file_of_another_network_names_the_layer(home: Path) -> None:
    path = home / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_96.h5"
    legacy_file(path, alpha=0.35)
    with pytest.raises(WeightsError, match=r"layer block_1_project has shapes 1x1x48x16, .* 1x1x48x8;") as caught:
        build_model(ModelSpec(variant="v2", alpha=0.5, height=96, width=96), "imagenet")
    assert "Keras's cached one: delete it" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert path.exists()
