"""What is published is whole, or not there; and never in the place of something else."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from mbexport import remote
from mbexport.artifact import read_artifact
from mbexport.bundle.layouts.write import write_layout
from mbexport.bundle.make import bundle
from mbexport.bundle.opened import open_artifact, open_artifacts
from mbexport.errors import (
    ArtifactError,
    BundleError,
    InputError,
    MissingDownloadError,
    MissingPackageError,
    OutputError,
)
from mbexport.publish import publish
from tests.test_cli_results import invoke
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.artifact import Artifact

ORT = ["ort:cpu"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("tiny"), TinyNetwork())


@pytest.fixture(scope="module")
def bundled(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "tiny.zip"
    bundle([artifact], out, ORT)
    return out


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server that speaks S3, on this machine alone."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder's URL."""
    if request.param == "file":
        return f"file://{tmp_path}/remote"
    found: str = f"{request.getfixturevalue('s3')}/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another bundle of the same name."""
    network = TinyNetwork()
    network.weights["kernel"] += 0.25
    out = tmp_path_factory.mktemp("other") / "tiny.zip"
    bundle([tiny_artifact(tmp_path_factory.mktemp("tiny2"), network)], out, ORT)
    return out


def names(place: str) -> set[str]:
    fs, root = remote.filesystem(place)
    return {name.removeprefix(f"{root}/") for name in fs.find(root)}


def test_a_bundle_there_and_back(place: str, bundled: Path, artifact: Artifact) -> None:
    first = publish(bundled, f"{place}/deep/")
    assert first.url == f"{place}/deep/tiny.zip"
    assert first.sha256 == hashlib.sha256(bundled.read_bytes()).hexdigest()
    assert not first.was_there
    assert names(place) == {"deep/tiny.zip"}, "no temporary file is left"
    assert publish(bundled, f"{place}/deep/").was_there
    for url in (first.url, f"{first.url}/tiny"):
        assert open_artifact(as_path(url)).manifest == artifact.manifest


def as_path(url: str) -> Path:
    """As the command line hands it on: a path, which has lost a slash."""
    from pathlib import Path

    return Path(url)


def test_an_artifact_there_and_back(place: str, artifact: Artifact) -> None:
    published = publish(artifact.path, f"{place}/tiny")
    assert set(published.files) == names(f"{place}/tiny") == {path.name for path in artifact.path.iterdir()}
    assert open_artifact(as_path(f"{place}/tiny")).manifest == artifact.manifest


def test_another_content_stays(place: str, bundled: Path, other: Path) -> None:
    publish(bundled, f"{place}/tiny.zip")
    with pytest.raises(OutputError, match="holds something else; replace it with --force"):
        publish(other, f"{place}/tiny.zip")
    fs, path = remote.filesystem(f"{place}/tiny.zip")
    assert fs.cat_file(path) == bundled.read_bytes()
    publish(other, f"{place}/tiny.zip", force=True)
    fs.invalidate_cache()
    assert fs.cat_file(path) == other.read_bytes()


def test_readers_begin_with_what_comes_last(place: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every moment of publishing the folder is none, or whole."""
    seen: list[set[str]] = []
    put = remote.put

    def watched(fs: Any, source: Path, path: str) -> None:
        put(fs, source, path)
        seen.append({each.rpartition("/")[2] for each in fs.find(path.rpartition("/")[0])})

    monkeypatch.setattr(remote, "put", watched)
    publish(artifact.path, f"{place}/tiny")
    assert ["manifest.json" in each for each in seen] == [False] * (len(seen) - 1) + [True]
    fs, path = remote.filesystem(f"{place}/tiny")
    fs.pipe_file(f"{path}/model.onnx", b"older")
    seen.clear()
    publish(artifact.path, f"{place}/tiny", force=True)
    assert ["manifest.json" in each for each in seen] == [False] * (len(seen) - 1) + [True]
    assert len(seen) == 2, "what was the same is left as it is"


def test_a_write_that_fails_leaves_what_was_there(
    bundled: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bundled, f"file://{tmp_path}/remote/f")

    def torn(source: Any, target: Any, *_: Any) -> None:
        target.write(source.read(10))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", torn)
    with pytest.raises(OutputError, match="No space left"):
        publish(other, f"file://{tmp_path}/remote/f", force=True)
    assert (tmp_path / "remote" / "f").read_bytes() == bundled.read_bytes()
    assert names(f"file://{tmp_path}/remote") == {"f"}


def test_files_and_folders_do_not_hide_each_other(place: str, bundled: Path, artifact: Artifact) -> None:
    publish(artifact.path, f"{place}/a")
    with pytest.raises(OutputError, match="stands there and is no part of what is published"):
        publish(bundled, f"{place}/a", force=True)
    publish(bundled, f"{place}/b")
    with pytest.raises(OutputError, match="a file, stands there"):
        publish(artifact.path, f"{place}/b", force=True)
    assert open_artifact(as_path(f"{place}/a")).manifest == artifact.manifest


def test_nobody_elses_file_becomes_a_part(place: str, artifact: Artifact) -> None:
    """Such as the labels of a layout that had some."""
    fs, path = remote.filesystem(f"{place}/a/labels.txt")
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, b"cat")
    with pytest.raises(OutputError, match=r"labels\.txt stands there"):
        publish(artifact.path, f"{place}/a", force=True)
    assert names(f"{place}/a") == {"labels.txt"}


def test_a_misspelt_bucket_is_not_made(s3: str, bundled: Path) -> None:
    with pytest.raises(OutputError, match="cannot write s3://bukcet/tiny"):
        publish(bundled, "s3://bukcet/tiny.zip")
    assert fsspec.filesystem("s3").ls("") == ["bucket"]


def test_what_is_damaged_or_nothing_of_mbexports_is_not_published(
    artifact: Artifact, bundled: Path, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/remote"
    torn = tmp_path / "torn.zip"
    torn.write_bytes(bundled.read_bytes()[:-100])
    with pytest.raises(BundleError):
        publish(torn, url)
    shutil.copytree(artifact.path, tmp_path / "bad")
    (tmp_path / "bad" / "model.onnx").write_bytes(b"bad")
    with pytest.raises(ArtifactError):
        publish(tmp_path / "bad", url)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="neither a bundle nor the folder"):
        publish(tmp_path / "own", url)
    layout = tmp_path / "own" / "plain"
    write_layout([artifact], layout, "plain", ["ort:cpu"])
    with pytest.raises(InputError, match="neither a bundle nor the folder"):
        publish(tmp_path / "own", url)
    (layout / "id_rsa").write_text("mine")
    with pytest.raises(InputError, match="id_rsa is no part of the layout"):
        publish(layout, url)
    (layout / "id_rsa").unlink()
    (layout / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match=r"model\.onnx is not as it was written"):
        publish(layout, url)
    (layout / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx is not there"):
        publish(layout, url)
    (layout / "model.onnx").symlink_to(tmp_path / "bad" / "manifest.json")
    with pytest.raises(InputError, match="is a link"):
        publish(layout, url)
    with pytest.raises(InputError, match="where to"):
        publish(bundled, "")
    assert not (tmp_path / "remote").exists()


def test_what_is_not_there(place: str) -> None:
    with pytest.raises(InputError, match="neither a file nor an artifact's folder"):
        open_artifact(as_path(f"{place}/lost.zip"))


def test_a_manifest_that_points_outside(tmp_path: Path, artifact: Artifact) -> None:
    publish(artifact.path, f"file://{tmp_path}/remote/tiny")
    manifest = tmp_path / "remote" / "tiny" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model.onnx"', '"../../secret"'))
    with pytest.raises(InputError, match=re.escape("../../secret, which is outside its folder")):
        open_artifact(as_path(f"file://{tmp_path}/remote/tiny"))


def test_urls_that_cannot_be(tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Protocol not known: nowhere"):
        publish(bundled, "nowhere://a/b")
    with pytest.raises(InputError, match="lost is not there"):
        publish(tmp_path / "lost", f"file://{tmp_path}/a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a bundle nor"):
        publish(tmp_path / "empty", f"file://{tmp_path}/a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(MissingDownloadError, match="cannot read s3://other/x"):
        open_artifact(as_path("s3://other/x"))


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(MissingDownloadError, match=r"cannot read http://127\.0\.0\.1:9/x\.zip"):
        open_artifact(as_path("http://127.0.0.1:9/x.zip"))


def test_a_bundle_of_a_bundle_has_all_of_it(artifact: Artifact, tmp_path: Path) -> None:
    """Siblings; here one network under two names."""
    shutil.copytree(artifact.path, tmp_path / "other")
    document = json.loads((tmp_path / "other" / "manifest.json").read_text())
    document["slug"] = "other"
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(document))
    bundle([artifact, read_artifact(tmp_path / "other")], tmp_path / "two.zip", ["ort:cpu"])
    names = {each.manifest.slug for each in open_artifacts(tmp_path / "two.zip")}
    assert names == {artifact.manifest.slug, "other"}


def test_what_is_missing_is_named(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(MissingPackageError, match=r"mbexport\[remote\]"):
        publish(bundled, "s3://a/b")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3:/bucket/a.zip", "s3://bucket/a.zip"),
        ("s3://bucket/a.zip", "s3://bucket/a.zip"),
        ("file:/tmp/a", "file:///tmp/a"),
        ("file:/tmp/a%20b", "file:///tmp/a b"),
        ("local:///tmp/a", "file:///tmp/a"),
        ("hdfs:///a/b", "hdfs:///a/b"),
        ("C:/a.zip", None),
        ("a/b.zip", None),
        ("a:b", None),
    ],
)
def test_which_arguments_are_urls(text: str, url: str | None) -> None:
    assert remote.url_of(text) == url


def test_the_command_line(bundled: Path, other: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote/tiny.zip"
    done = invoke("publish", str(bundled), url)
    assert done.exit_code == 0, done.output
    assert f"{url}: published" in done.stdout
    assert invoke("publish", str(bundled), url, "--json").stdout.count('"was_there": true') == 1
    done = invoke("verify", url, "--runtime", "ort:cpu")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(url)
    assert invoke("validate", url, "--runtime", "ort:cpu").exit_code == 0
    done = invoke("validate", f"{url}/other", "--runtime", "ort:cpu")
    assert done.stderr == f"error: {url} holds no artifact other, only tiny\n", "and not where its copy lies"
    assert invoke("publish", str(other), url).exit_code == 2
    assert invoke("publish", str(other), url, "--force").exit_code == 0
