"""Bundles: one file of the same bytes, right when it is used as shipped, and found out when it is not."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mbexport.artifact import read_artifact, read_reference
from mbexport.bundle.archive import written
from mbexport.bundle.golden import bmp
from mbexport.bundle.make import bundle
from mbexport.bundle.opened import open_artifact
from mbexport.bundle.rebuild import Given, rebuild
from mbexport.bundle.unpack import unpacked
from mbexport.bundle.verify import verify
from mbexport.errors import ArtifactError, BundleError, InputError, NewerSchemaError, OutputError, UnprovenError
from mbexport.profiles import write_profile
from mbexport.reference import refuse_inflating
from tests.measured import measurement, profile
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from mbexport.artifact import Artifact

TARGETS = ["ort:cpu", "openvino:cpu"]
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def bundled(small_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small V3. Do not write into it."""
    out = tmp_path_factory.mktemp("bundle") / "small.zip"
    bundle([small_artifact], out, TARGETS)
    return out


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A private key, its public one, and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    own, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    texts = {
        "private": own.private_bytes(*plain),
        "public": own.public_key().public_bytes(*public),
        "stranger": other.public_key().public_bytes(*public),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    return {name: folder / name for name in texts}


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def changed(bundled: Path, folder: Path, change: Callable[[Members], object]) -> Path:
    """Another bundle, with whole headers and checksums."""
    contents = members(bundled)
    change(contents)
    out = folder / "changed.zip"
    out.write_bytes(written(contents))
    return out


def relisted(contents: Members, change: Callable[[dict[str, Any]], object] = lambda _document: None) -> None:
    """Make bundle.json say what is there, as whoever tampers would."""
    document = json.loads(contents["bundle.json"])
    document["files"] = {
        name: hashlib.sha256(data).hexdigest() for name, data in contents.items() if name != "bundle.json"
    }
    change(document)
    contents["bundle.json"] = json.dumps(document).encode()


def test_same_content_same_bytes(bundled: Path, small_artifact: Artifact, tmp_path: Path) -> None:
    report = bundle([small_artifact], tmp_path / "again.zip", TARGETS)
    assert (tmp_path / "again.zip").read_bytes() == bundled.read_bytes()
    assert report.sha256 == hashlib.sha256(bundled.read_bytes()).hexdigest()


def test_every_file_is_listed(bundled: Path) -> None:
    contents = members(bundled)
    listed = json.loads(contents.pop("bundle.json"))["files"]
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def test_the_artifact_travels_whole(bundled: Path, small_artifact: Artifact) -> None:
    contents = members(bundled)
    folder = f"artifacts/{small_artifact.manifest.slug}"
    for path in small_artifact.path.iterdir():
        assert contents[f"{folder}/{path.name}"] == path.read_bytes()


def test_verify(bundled: Path) -> None:
    report = verify(bundled, TARGETS)
    assert report.passed
    assert [row.runtime for row in report.rows] == TARGETS
    assert report.signature == "none"
    assert report.files == len(members(bundled))


def test_bill_of_materials_is_cyclonedx(bundled: Path, small_artifact: Artifact) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = members(bundled)["sbom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": small_artifact.sha256}]
    tools = {tool["name"]: tool["version"] for tool in document["metadata"]["tools"]["components"]}
    assert tools == small_artifact.manifest.tools


@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_infer_as_shipped_answers_as_keras(bundled: Path, tmp_path: Path, engine: str) -> None:
    with zipfile.ZipFile(bundled) as file:
        file.extractall(tmp_path)
    document = json.loads((tmp_path / "bundle.json").read_text())
    document["serving"] = [one for one in document["serving"] if one["engine"] == engine]
    if engine == "openvino":
        document["serving"][0]["settings"]["INFERENCE_PRECISION_HINT"] = "f32"
    (tmp_path / "bundle.json").write_text(json.dumps(document))
    pictures = [one["picture"] for one in document["golden"]]
    done = subprocess.run(
        [sys.executable, "-I", "infer.py", *pictures], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(pictures) == 3
    for line, golden in zip(lines, document["golden"], strict=True):
        expected = "  ".join(f"{one['value']:.4f} {one['index']}" for one in golden["top"])
        assert line == f"{golden['picture']}: {expected}"


def test_golden_answers_are_keras_own(bundled: Path, small_artifact: Artifact) -> None:
    with np.load(small_artifact.path / "reference.npz") as arrays:
        truth = arrays["float64/predictions"]
    for number, golden in enumerate(json.loads(members(bundled)["bundle.json"])["golden"]):
        assert [one["index"] for one in golden["top"]] == np.argsort(-truth[number])[:5].tolist()
        assert golden["top"][0]["value"] == truth[number].max()


def test_infer_is_short(bundled: Path) -> None:
    assert len([line for line in members(bundled)["infer.py"].splitlines() if line]) <= 40


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere.jpg", "No such file"), ("bundle.json", "cannot identify image"), ("exif.png", "not a TIFF file")],
)
def test_infer_says_what_it_cannot_read(bundled: Path, tmp_path: Path, name: str, reason: str) -> None:
    with zipfile.ZipFile(bundled) as file:
        file.extractall(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "exif.png", exif=b"Exif\0\0XXXXXXXX")
    done = subprocess.run(
        [sys.executable, "-I", "infer.py", "golden/1.bmp", name],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("golden/1.bmp: ")
    assert done.stderr.startswith(f"{name} cannot be read: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("resize_px", [10**9, 8])
def test_a_picture_that_the_contract_does_not_fit(small_artifact: Artifact, resize_px: int) -> None:
    contract = msgspec.structs.replace(small_artifact.manifest.input, resize_px=resize_px)
    with pytest.raises(ArtifactError, match=f"resize_px, {resize_px}, does not fit pictures of 64x64"):
        bmp(np.zeros((64, 64, 3), np.uint8), contract)


def test_profiles_travel(small_artifact: Artifact, tmp_path: Path) -> None:
    own = profile(measurement(), artifact_sha256=small_artifact.sha256)
    write_profile(tmp_path / "p" / "some-machine" / "a.json", own)
    write_profile(tmp_path / "p" / "some-machine" / "b.json", profile(measurement(), artifact_sha256="0" * 64))
    bundle([small_artifact], tmp_path / "b.zip", ["ort:cpu"], profiles=[tmp_path / "p"])
    contents = members(tmp_path / "b.zip")
    assert sum("/profiles/" in name for name in contents) == 1
    assert f"| {own.hardware.slug} |" in contents["README.md"].decode()
    assert verify(tmp_path / "b.zip", ["ort:cpu"]).passed


def test_what_fails_is_not_shipped(tmp_path: Path) -> None:
    model = TinyNetwork().onnx_model()
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.full(5, 9, np.float32), "bias"))
    artifact = tiny_artifact(tmp_path, TinyNetwork(), model=(wrong(model)))
    with pytest.raises(UnprovenError, match="tiny fails on ort:cpu"):
        bundle([artifact], tmp_path / "b.zip", ["ort:cpu"])
    assert not (tmp_path / "b.zip").exists()


def wrong(model: onnx.ModelProto) -> bytes:
    """Answers another network's answers."""
    kernel = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(-kernel, "kernel"))
    data: bytes = model.SerializeToString()
    return data


def test_two_of_one_name(small_artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one of a name"):
        bundle([small_artifact, small_artifact], tmp_path / "b.zip", TARGETS)


def test_an_artifact_in_a_bundle_can_be_opened(bundled: Path, small_artifact: Artifact) -> None:
    slug = small_artifact.manifest.slug
    for path in (bundled, bundled / slug):
        assert open_artifact(path).sha256 == small_artifact.sha256
    with pytest.raises(BundleError, match=f"no artifact other, only {slug}"):
        open_artifact(bundled / "other")
    assert open_artifact(small_artifact.path) == small_artifact


def test_an_altered_model_is_named(bundled: Path, tmp_path: Path) -> None:
    name = next(name for name in members(bundled) if name.endswith("model.onnx"))
    altered = changed(bundled, tmp_path, lambda contents: contents.update({name: contents[name] + b"\0"}))
    with pytest.raises(BundleError, match=f"{name} is not the file"):
        verify(altered, TARGETS)


def test_an_altered_model_that_is_listed_is_found_out_by_its_artifact(bundled: Path, tmp_path: Path) -> None:
    def change(contents: Members) -> None:
        name = next(name for name in contents if name.endswith("model.onnx"))
        contents[name] += b"\0"
        relisted(contents)

    with pytest.raises(ArtifactError, match=r"model\.onnx is not the file that was built"):
        verify(changed(bundled, tmp_path, change), TARGETS)


def test_a_missing_and_an_extra_member(bundled: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lacks infer\.py"):
        verify(changed(bundled, tmp_path, lambda contents: contents.pop("infer.py")), TARGETS)
    with pytest.raises(BundleError, match=r"holds evil\.py"):
        verify(changed(bundled, tmp_path, lambda contents: contents.update({"evil.py": b""})), TARGETS)
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        verify(changed(bundled, tmp_path, lambda contents: contents.pop("bundle.json")), TARGETS)


@pytest.mark.parametrize("place", ["../../etc", "/etc", "artifacts/..", ""])
def test_a_manifest_that_points_outside(bundled: Path, tmp_path: Path, place: str) -> None:
    def change(contents: Members) -> None:
        relisted(contents, lambda document: document["artifacts"][0].update(path=place))

    with pytest.raises(BundleError, match="which is no member"), unpacked(changed(bundled, tmp_path, change)):
        pytest.fail("it was opened")


@pytest.mark.parametrize("key", ["serving", "golden"])
def test_a_serving_file_that_points_outside(bundled: Path, tmp_path: Path, key: str) -> None:
    field = {"serving": "model", "golden": "picture"}[key]

    def change(contents: Members) -> None:
        relisted(contents, lambda document: document[key][0].update({field: "../../x"}))

    with pytest.raises(BundleError, match=r"'\.\./\.\./x', which is no member"):
        verify(changed(bundled, tmp_path, change), TARGETS)


@pytest.mark.parametrize("slug", ["../../evil", "/tmp/evil", "..", ".hidden", "a/b", ""])
def test_a_name_that_leads_outside(bundled: Path, tmp_path: Path, slug: str) -> None:
    """The folder's name is what rebuilding writes to."""

    def change(contents: Members) -> None:
        name = next(name for name in contents if name.endswith("/manifest.json"))
        manifest = json.loads(contents[name]) | {"slug": slug}
        contents[name] = json.dumps(manifest).encode()
        relisted(contents, lambda document: document["artifacts"][0].update(slug=slug))

    path = changed(bundled, tmp_path, change)
    with pytest.raises(BundleError, match="which is no member"):
        rebuild(path, tmp_path / "again.zip")


def test_a_name_that_is_not_the_specs(bundled: Path, tmp_path: Path) -> None:
    def change(contents: Members) -> None:
        for name in [name for name in contents if name.startswith("artifacts/")]:
            contents[name.replace("mobilenet", "cellnet")] = contents.pop(name)
        for name in [name for name in contents if name.startswith("evidence/")]:
            contents[name.replace("mobilenet", "cellnet")] = contents.pop(name)
        name = next(name for name in contents if name.endswith("/manifest.json"))
        contents[name] = contents[name].replace(b'"slug": "mobilenet', b'"slug": "cellnet')
        contents["bundle.json"] = contents["bundle.json"].replace(b"mobilenet", b"cellnet")
        relisted(contents)

    with pytest.raises(BundleError, match="is not what its spec is called"):
        rebuild(changed(bundled, tmp_path, change), tmp_path / "again.zip")


def test_a_model_that_no_artifact_names_is_not_served(bundled: Path, tmp_path: Path) -> None:
    """It would be run by infer.py and checked by nobody."""

    def change(contents: Members) -> None:
        name = next(name for name in contents if name.endswith("/model.onnx"))
        other = name.replace("model.onnx", "other.onnx")
        contents[other] = b"anything"
        relisted(contents, lambda document: document["serving"][0].update(model=other))

    with pytest.raises(BundleError, match=r"serves .*other\.onnx, which no artifact names"):
        verify(changed(bundled, tmp_path, change), TARGETS)


def test_a_golden_answer_that_is_not_keras_own(bundled: Path, tmp_path: Path) -> None:
    def change(contents: Members) -> None:
        relisted(contents, lambda document: document["golden"][0]["top"].reverse())

    with pytest.raises(BundleError, match="golden pictures"):
        verify(changed(bundled, tmp_path, change), TARGETS)


@pytest.mark.parametrize("kind", ["deflated", "overstated"])
def test_arrays_that_would_inflate(bundled: Path, tmp_path: Path, kind: str) -> None:
    """The zip within: a reference of kilobytes must not become gigabytes."""
    buffer = io.BytesIO()
    if kind == "deflated":
        np.savez_compressed(buffer, input=np.zeros((2**24,), np.float32))
    else:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, header)
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("input/input.npy", member.getvalue() + bytes(16))

    def change(contents: Members) -> None:
        name = next(name for name in contents if name.endswith("/reference.npz"))
        contents[name] = buffer.getvalue()
        manifest = next(name for name in contents if name.endswith("/manifest.json"))
        document = json.loads(contents[manifest])
        document["files"]["reference.npz"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        contents[manifest] = json.dumps(document).encode()
        relisted(contents)

    path = changed(bundled, tmp_path, change)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=r"reference\.npz cannot be read"):
        verify(path, TARGETS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_manifest_beyond_its_size(bundled: Path, tmp_path: Path) -> None:
    path = changed(bundled, tmp_path, lambda contents: contents.update({"bundle.json": b"[" + b"{}," * 2**21}))
    with pytest.raises(BundleError, match=r"bundle\.json is larger"):
        verify(path, TARGETS)


def test_rebuilding_onto_itself_is_refused(bundled: Path) -> None:
    before = bundled.read_bytes()
    with pytest.raises(OutputError, match="would lie over"):
        rebuild(bundled, bundled)
    assert bundled.read_bytes() == before


def test_a_bundle_does_not_take_the_place_of_what_it_is_made_of(
    small_artifact: Artifact, bundled: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    key, weights = keys["private"], tmp_path / "own.keras"
    weights.write_bytes(b"mine")
    for out, fault in (
        (key, "would lie over"),
        (small_artifact.path / "model.onnx", "would lie over"),
        (small_artifact.path / "new.zip", "would lie over"),
        (tmp_path, "is a folder"),
        (Path("s3://bucket/b.zip"), "is a URL"),
    ):
        with pytest.raises(OutputError, match=fault):
            bundle([small_artifact], out, TARGETS, key=key)
    with pytest.raises(OutputError, match="would lie over"):
        rebuild(bundled, weights, Given(weights))
    assert weights.read_bytes() == b"mine"
    assert not Path("s3:").exists()


def test_a_bundle_may_lie_beside_the_profiles_and_pictures_that_it_searches(
    small_artifact: Artifact, bundled: Path, tmp_path: Path
) -> None:
    own, out = (tmp_path / "machine" / name for name in ("a.json", "b.zip"))
    write_profile(own, profile(measurement(), artifact_sha256=small_artifact.sha256))
    before = own.read_bytes()
    for _ in range(2):
        bundle([small_artifact], out, ["ort:cpu"], profiles=[tmp_path])
    assert any("/profiles/" in name for name in members(out))
    with pytest.raises(OutputError, match="would lie over"):
        bundle([small_artifact], own, ["ort:cpu"], profiles=[tmp_path])
    with pytest.raises(OutputError, match="would lie over"):
        rebuild(bundled, own, Given(images=tmp_path))
    with pytest.raises(InputError, match="--images"):
        rebuild(bundled, tmp_path / "again.zip", Given(images=tmp_path))
    assert own.read_bytes() == before


def overlapping(count: int = 8, size_bytes: int = 2**20) -> bytes:
    """An archive of so many members that all lie in the last one."""
    data = bytearray()
    inner = bytes(size_bytes)
    heads: list[tuple[str, int]] = []
    for number in range(count):
        heads.append((f"m{number}", len(data)))
        name = f"m{number}".encode()
        data += b"PK\3\4" + b"\x14\0" + bytes(8) + b"\0" * 12 + len(name).to_bytes(2, "little") + b"\0\0" + name
    start = len(data)
    data += inner
    directory = len(data)
    for member, at in heads:
        length = (start + size_bytes - at - 30 - len(member)).to_bytes(4, "little")
        data += b"PK\1\2" + b"\x14\0\x14\0" + bytes(8) + bytes(4) + length + length
        data += len(member).to_bytes(2, "little") + bytes(12) + at.to_bytes(4, "little") + member.encode()
    size = len(data) - directory
    data += b"PK\5\6" + bytes(4) + count.to_bytes(2, "little") * 2
    return bytes(data + size.to_bytes(4, "little") + directory.to_bytes(4, "little") + b"\0\0")


def test_arrays_that_lie_in_each_other(tmp_path: Path) -> None:
    (tmp_path / "reference.npz").write_bytes(overlapping())
    with pytest.raises(ValueError, match="larger than the file"):
        refuse_inflating(tmp_path / "reference.npz")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda array: array.astype("<U8"), "without a number in it"),
        (lambda array: array.astype(np.complex128), "without a number in it"),
        (lambda array: array[:0], "without a number in it"),
        (None, "does not hold the input that the manifest names"),
    ],
)
def test_a_reference_that_cannot_be(
    make: Callable[[Any], Any] | None, fault: str, small_artifact: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(small_artifact.path, tmp_path / "a")
    with np.load(tmp_path / "a" / "reference.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    name = next(name for name in found if name.startswith("input/"))
    if make is None:
        found["input/another"] = found.pop(name)
    else:
        found[name] = make(found[name])
    np.savez(tmp_path / "a" / "reference.npz", **found)
    document = json.loads((tmp_path / "a" / "manifest.json").read_text())
    document["files"]["reference.npz"] = hashlib.sha256((tmp_path / "a" / "reference.npz").read_bytes()).hexdigest()
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=fault):
        read_reference(read_artifact(tmp_path / "a"))
    document["outputs"] = []
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="names no outputs"):
        read_artifact(tmp_path / "a")


def test_an_artifact_that_points_outside(bundled: Path, tmp_path: Path) -> None:
    def change(contents: Members) -> None:
        name = next(name for name in contents if name.endswith("/manifest.json"))
        document = json.loads(contents[name])
        document["files"]["../../../bundle.json"] = "0" * 64
        contents[name] = json.dumps(document).encode()
        relisted(contents)

    with pytest.raises(ArtifactError, match="lies outside the artifact"):
        verify(changed(bundled, tmp_path, change), TARGETS)


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph", "sparse"])
def test_weights_outside_of_the_file(tmp_path: Path, where: str) -> None:
    """ONNX Runtime would read whatever file the model names."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(4 * 5))
    outside = helper.make_tensor("bias", TensorProto.FLOAT, [5], np.zeros(5, np.float32))
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../secret.bin")
    model = TinyNetwork().onnx_model()
    if where == "initializer":
        model.graph.initializer[2].CopyFrom(outside)
    elif where == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=outside))
    elif where == "sparse":
        attribute = model.graph.node.add(op_type="Constant", output=["unused"]).attribute.add(name="sparse_value")
        attribute.type = onnx.AttributeProto.SPARSE_TENSOR
        attribute.sparse_tensor.values.CopyFrom(outside)
    else:
        inner = helper.make_graph([], "inner", [], [], [outside])
        model.graph.node.append(helper.make_node("If", ["unknown"], ["unused"], then_branch=inner, else_branch=inner))
    artifact = tiny_artifact(tmp_path, model=model.SerializeToString())
    contents = {f"artifacts/tiny/{path.name}": path.read_bytes() for path in artifact.path.iterdir()}
    entry = {"path": "artifacts/tiny", "slug": "tiny", "sha256": artifact.sha256, "precision": "f32"}
    contents["bundle.json"] = json.dumps(
        {"schema_version": 1, "mbexport": "0", "artifacts": [entry], "serving": [], "golden": []}
    ).encode()
    relisted(contents)
    path = tmp_path / "b.zip"
    path.write_bytes(written(contents))
    with pytest.raises(BundleError, match="keeps weights outside of the file"), unpacked(path):
        pytest.fail("it was opened")


def test_a_newer_schema(bundled: Path, tmp_path: Path) -> None:
    def change(contents: Members) -> None:
        relisted(contents, lambda document: document.update(schema_version=99))

    with pytest.raises(NewerSchemaError, match="schema version 99"):
        verify(changed(bundled, tmp_path, change), TARGETS)


def test_a_damaged_profile_is_found(bundled: Path, tmp_path: Path) -> None:
    def change(contents: Members) -> None:
        name = next(name for name in contents if name.endswith("validation.json"))
        contents[name] = b"{}"
        relisted(contents)

    with pytest.raises(InputError, match=r"validation\.json has no schema_version"):
        verify(changed(bundled, tmp_path, change), TARGETS)


def test_nothing_is_left_behind(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    verify(bundled, ["ort:cpu"])
    assert list(tmp_path.iterdir()) == []


def test_a_signature_holds_for_its_key_alone(small_artifact: Artifact, keys: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "signed.zip"
    assert bundle([small_artifact], out, ["ort:cpu"], key=keys["private"]).signed
    assert verify(out, ["ort:cpu"], key=keys["public"]).signature == "valid"
    assert verify(out, ["ort:cpu"]).signature == "not checked"
    stranger = verify(out, ["ort:cpu"], key=keys["stranger"])
    assert (stranger.signature, stranger.passed) == ("invalid", False)

    def change(contents: Members) -> None:
        signature = contents.pop("model.sig")
        contents["README.md"] += b"altered"
        relisted(contents)
        contents["model.sig"] = signature

    altered = verify(changed(out, tmp_path, change), ["ort:cpu"], key=keys["public"])
    assert (altered.signature, altered.passed) == ("invalid", False)
    assert "README.md" in (altered.signature_fault or "")


def test_model_signing_itself_agrees(small_artifact: Artifact, keys: dict[str, Path], tmp_path: Path) -> None:
    bundle([small_artifact], tmp_path / "signed.zip", ["ort:cpu"], key=keys["private"])
    folder = tmp_path / "signed"
    with zipfile.ZipFile(tmp_path / "signed.zip") as file:
        file.extractall(folder)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--public_key", str(keys["public"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_signature_where_one_is_asked_for(bundled: Path, keys: dict[str, Path]) -> None:
    report = verify(bundled, ["ort:cpu"], key=keys["public"])
    assert (report.passed, report.signature, report.signature_fault) == (False, "invalid", "it is not signed")
    assert report.files == len(members(bundled))
    with pytest.raises(InputError, match="--key"):
        verify(bundled, ["ort:cpu"], key=keys["public"].with_name("lost"))


def test_a_damaged_signature(small_artifact: Artifact, keys: dict[str, Path], tmp_path: Path) -> None:
    bundle([small_artifact], tmp_path / "s.zip", ["ort:cpu"], key=keys["private"])
    for text in (b"", b"{}", b"[" * 5000):
        path = changed(tmp_path / "s.zip", tmp_path, lambda contents, text=text: contents.update({"model.sig": text}))  # type: ignore[misc]
        assert verify(path, ["ort:cpu"], key=keys["public"]).signature == "invalid"


def test_a_key_of_another_kind(small_artifact: Artifact, tmp_path: Path) -> None:
    own = ed25519.Ed25519PrivateKey.generate()
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key").write_bytes(own.private_bytes(*plain))
    with pytest.raises(InputError, match="elliptic curve"):
        bundle([small_artifact], tmp_path / "b.zip", ["ort:cpu"], key=tmp_path / "key")


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key(bundled: Path, small_artifact: Artifact, tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    with pytest.raises(InputError, match="private key"):
        bundle([small_artifact], tmp_path / "b.zip", ["ort:cpu"], key=key)
    with pytest.raises(InputError, match="--key"):
        verify(changed(bundled, tmp_path, lambda contents: contents.update({"model.sig": b"{}"})), TARGETS, key=key)


def test_a_network_without_classes_or_pictures(tmp_path: Path) -> None:
    """No classes, no picture that rounds to whole pixels: no golden pictures, and still a bundle."""
    artifact = tiny_artifact(tmp_path, TinyNetwork(outputs=("features",)))
    report = bundle([read_artifact(artifact.path)], tmp_path / "b.zip", ["ort:cpu"])
    assert json.loads(members(tmp_path / "b.zip")["bundle.json"])["golden"] == []
    assert report.artifacts[0].slug == "tiny"
    assert verify(tmp_path / "b.zip", ["ort:cpu"]).passed
