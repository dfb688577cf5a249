"""The file of ``validate --save-outputs``: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
import onnx
import pytest

from mbexport import thresholds
from mbexport.accuracy.recording import Recording
from mbexport.accuracy.saved import read_saved
from mbexport.artifact import read_reference, write_artifact
from mbexport.compare_saved import compare_saved
from mbexport.errors import EngineError, InputError, NewerSchemaError, OutputError
from mbexport.images import network_input
from mbexport.reference import Golden, Reference
from mbexport.runtimes import ENGINES
from mbexport.validate import Checks, validate
from tests.saved_files import OUTPUT, PROBE, TRUTH, write
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.accuracy.saved import SavedOutputs
    from mbexport.artifact import Artifact
    from mbexport.manifest import OutputKind

KINDS: tuple[OutputKind, ...] = ("features", "logits", "probabilities")


def many_probes(out: Path) -> Artifact:
    """A network of dynamic size with three outputs and a golden picture."""
    network = TinyNetwork(outputs=KINDS)
    artifact = tiny_artifact(out, network)
    model = network.onnx_model()
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim in dims[1:3] if len(dims) == 4 else ():
            dim.dim_param = "side"
    rng = np.random.default_rng(2)

    def reference(height: int, width: int) -> Reference:
        inputs = rng.normal(size=(2, height, width, 3)).astype(np.float32)
        return Reference({"input": inputs}, network.answers(inputs, np.float32), network.answers(inputs, np.float64))

    contract = msgspec.structs.replace(artifact.manifest.input, shape=[None, None, None, 3], multiple_of=8)
    photo = rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    golden = Golden(photo, network.answers(network_input(photo[None], contract), np.float64))
    manifest = msgspec.structs.replace(artifact.manifest, input=contract)
    stored = replace(reference(8, 8), others=(reference(16, 24),), golden=(golden,))
    return write_artifact(out, manifest, {"model.onnx": model.SerializeToString()}, stored)


def recorded(artifact: Artifact, path: Path, *targets: str, checks: Checks | None = None) -> SavedOutputs:
    recording = Recording(artifact, path)
    recording.write(validate(artifact, targets, checks, threads=1, observe=recording.observe))
    return read_saved(path)


def test_everything_that_was_asked_and_answered_is_kept(tmp_path: Path) -> None:
    import onnxruntime

    artifact = many_probes(tmp_path)
    stored = read_reference(artifact)
    kept = recorded(artifact, tmp_path / "here" / "a.npz", "ort:cpu")
    names = ["reference pictures at 8x8", "reference pictures at 16x24", "golden picture 1"]
    assert [probe.name for probe in kept.document.probes] == names
    assert [len(probe.pictures) for probe in kept.document.probes] == [2, 2, 1]
    truths = [*(reference.keras_float64 for reference in stored.each), stored.golden[0].keras_float64]
    for name, truth in zip(names, truths, strict=True):
        for kind in KINDS:
            np.testing.assert_array_equal(kept.truth[name][kind], truth[kind])
    engine = onnxruntime.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    for name, reference in zip(names, stored.each, strict=False):
        answers = engine.run(list(KINDS), dict(reference.inputs))
        for kind, answer in zip(KINDS, answers, strict=True):
            np.testing.assert_allclose(kept.answers[0][name][kind], answer, rtol=1e-4, atol=1e-5)
    document = kept.document
    assert (document.artifact, document.artifact_sha256) == ("tiny", artifact.sha256)
    assert [(row.runtime, row.mode, row.batch, row.passed) for row in document.rows] == [
        ("ort:cpu", "parity", 2, True),
        ("ort:cpu", "production", 2, True),
    ]
    assert document.rows[0].versions == {"onnxruntime": onnxruntime.__version__}
    assert document.rows[0].precision.effective == "f32"
    assert document.rows[0].limits[names[2]]["logits"].least_db == thresholds.GOLDEN_LEAST_DB
    report = compare_saved([tmp_path / "here" / "a.npz"])
    assert report.passed
    assert report.rows[1].first is not None
    assert report.rows[1].first.passed


def test_compare_agrees_with_validate(tmp_path: Path) -> None:
    """The same answers, truth and limits give the same figures; where batches differ, those of the largest."""
    artifact = tiny_artifact(tmp_path, batch=3)
    path = tmp_path / "a.npz"
    recording = Recording(artifact, path)
    report = validate(artifact, ["ort:cpu", "openvino:cpu"], threads=1, observe=recording.observe)
    recording.write(report)
    for saved, row in zip(compare_saved([path]).rows, report.rows, strict=True):
        found = saved.truth
        assert (saved.runtime, saved.mode, saved.batch) == (row.runtime, row.mode, 3)
        assert saved.precision == row.precision
        assert (found.sqnr_db, found.max_abs_error) == (row.sqnr_db, row.max_abs_error)
        assert (found.threshold_db, found.threshold_origin) == (row.threshold_db, row.threshold_origin)
        assert (found.top1_agreement, saved.passed) == (row.top1_agreement, row.passed)


class Failing:
    """An engine that loads nothing."""

    package = "failing"

    def open(self, *_: object) -> Self:
        raise EngineError("failing:cpu cannot load the model")


def test_runtime_that_fails_has_a_failed_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENGINES, "failing", f"{__name__}:Failing")
    artifact = tiny_artifact(tmp_path)
    manifest = msgspec.structs.replace(artifact.manifest, models=artifact.manifest.models | {"failing": "model.onnx"})
    parity = Checks(modes=("parity",))
    for targets in (["ort:cpu", "failing:cpu"], ["failing:cpu"]):
        path = tmp_path / f"{len(targets)}.npz"
        kept = recorded(replace(artifact, manifest=manifest), path, *targets, checks=parity)
        failed = kept.document.rows[-1]
        assert (failed.passed, failed.reason) == (False, "failing:cpu cannot load the model")
        np.testing.assert_array_equal(
            kept.truth[PROBE]["probabilities"], read_reference(artifact).keras_float64["probabilities"]
        )
    report = compare_saved([tmp_path / "2.npz", tmp_path / "1.npz"])
    assert [row.passed for row in report.rows] == [True, False, False]
    assert report.rows[2].reason == "failing:cpu cannot load the model"


def test_inputs_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    files = []
    for name, count in (("a", 3), ("b", 3), ("c", 4)):
        files.append(tmp_path / f"{name}.npz")
        recorded(tiny_artifact(tmp_path / name, count=count), files[-1], "ort:cpu", checks=Checks(modes=("parity",)))
    assert compare_saved(files[:2]).passed
    with pytest.raises(InputError, match="other inputs"):
        compare_saved([files[0], files[2]])


def test_place_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "a.npz", "cannot write")):
        with pytest.raises(OutputError, match=words):
            Recording(artifact, path)
    Recording(artifact, tmp_path / "deep" / "er" / "a.npz")
    assert not (tmp_path / "deep").exists()


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, changes: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    contents = {name: data for name, data in (entries(path) | changes).items() if data is not None}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Exploding:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return self.path.touch, ()


ANSWER, TRUE = f"answer/0/0/{OUTPUT}.npy", f"truth/0/{OUTPUT}.npy"
HEAD = npy(np.zeros(3))[:128]


def claimed(shape: str) -> bytes:
    """An array of three numbers whose head says something else."""
    return HEAD.replace(b"(3,), }" + b" " * 30, shape.encode().ljust(3 + 34, b" ")) + bytes(24)


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(np.load(io.BytesIO(entries(path)["document.npy"])).tobytes())
    return found


def with_document(path: Path, data: bytes) -> None:
    rewrite(path, {"document.npy": npy(np.frombuffer(data, np.uint8))})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"document.npy": None}, "it lacks document"),
        ({TRUE: None}, f"it lacks truth/0/{OUTPUT}"),
        ({TRUE: npy(TRUTH[:1])}, r"shape \(1, 3\) for 2 pictures"),
        ({TRUE: npy(TRUTH[:, :0])}, r"shape \(2, 0\) for 2 pictures"),
        ({TRUE: npy(TRUTH[..., None])}, r"shape \(2, 3, 1\) for 2 pictures"),
        ({TRUE: npy(np.array(1.0))}, r"shape \(\) for 2 pictures"),
        ({TRUE: npy(TRUTH * np.nan)}, "not finite"),
        ({TRUE: npy(TRUTH * 1j)}, "complex128 instead of numbers"),
        ({TRUE: npy(np.array([b"text"]))}, "instead of numbers"),
        ({TRUE: npy(np.zeros(2, [("a", "f4")]))}, "instead of numbers"),
        ({ANSWER: b"no npy"}, "magic string"),
        ({ANSWER: b""}, ""),
        ({ANSWER: npy(TRUTH)[:-1]}, ""),
        ({ANSWER: npy(TRUTH) + b"more"}, ""),
        ({ANSWER: npy(TRUTH)[:9]}, ""),
        ({ANSWER: claimed("(10000000000000,), }")}, "cannot reshape"),
        ({ANSWER: claimed("(-3, -1), }")}, ""),
        ({ANSWER: claimed("(" * 30)}, ""),
        ({ANSWER: HEAD.replace(b"NUMPY\x01", b"NUMPY\x03") + bytes(24)}, "head of a form"),
    ],
)
def test_damaged_arrays_are_refused(changes: dict[str, bytes | None], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    rewrite(path, changes)
    with pytest.raises(InputError, match=f"a.npz is no file of .* or a damaged one .*{words}") as raised:
        read_saved(path)
    assert "\n" not in str(raised.value)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path, trap = write(tmp_path / "a.npz", TRUTH), tmp_path / "trap"
    data = npy(np.array([Exploding(trap)], dtype=object))
    pickle.loads(data[data.index(b"\n") + 1 :])
    assert trap.exists()  # it would work
    trap.unlink()
    for name in (ANSWER, TRUE, "document.npy"):
        rewrite(write(path, TRUTH), {name: data})
        with pytest.raises(InputError, match="holds object instead of numbers"):
            read_saved(path)
    assert not trap.exists()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"is no file of|cannot be read"):
            read_saved(path)


def test_changed_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            kept = read_saved(path)
        except InputError:
            continue
        np.testing.assert_array_equal(kept.answers[0][PROBE][OUTPUT], TRUTH)


def test_bombs_are_refused_unopened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    rewrite(path, {ANSWER: npy(np.zeros((2, 5_000_000)))}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="it is compressed"):
        read_saved(path)
    data = write(path, TRUTH).read_bytes()
    size = len(entries(path)[ANSWER]).to_bytes(4, "little")
    path.write_bytes(data.replace(size + size, (2**31).to_bytes(4, "little") * 2))
    with pytest.raises(InputError, match="claims to hold more bytes"):
        read_saved(path)


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"schema_version": true}'])
def test_damaged_documents_are_refused(data: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    with_document(path, data)
    with pytest.raises(InputError, match=r"a\.npz"):
        read_saved(path)


@pytest.mark.parametrize("field", ["rows", "probes", "outputs"])
def test_document_about_nothing_is_refused(field: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    with_document(path, json.dumps(document(path) | {field: []}).encode())
    with pytest.raises(InputError, match="it names no rows, no inputs or no outputs"):
        read_saved(path)


def test_newer_schema_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", TRUTH)
    with_document(path, json.dumps(document(path) | {"schema_version": 2, "rows": "of another kind"}).encode())
    with pytest.raises(NewerSchemaError, match=r"a\.npz has schema version 2; .* Install a newer mbexport"):
        read_saved(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", weights=TRUTH)
    (tmp_path / "text.npz").write_text("text")
    onnx.save(TinyNetwork().onnx_model(), tmp_path / "model.npz")
    for name in ("foreign.npz", "text.npz", "model.npz"):
        with pytest.raises(InputError, match=f"{name} is no file of mbexport validate --save-outputs"):
            read_saved(tmp_path / name)
    for name in ("missing.npz", "."):
        with pytest.raises(InputError, match="is not a file; make one with"):
            read_saved(tmp_path / name)
