"""The artifact folder: ``model.onnx``, ``manifest.json``, ``reference.npz``; checked on reading, swapped in whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from mbexport.errors import ArtifactError, DocumentError, NewerSchemaError, OutputError
from mbexport.labels import SCHEMA_VERSION as LABELS_VERSION
from mbexport.labels import Label, Labels
from mbexport.manifest import SCHEMA_VERSION, Manifest
from mbexport.reference import npz_bytes, read_npz

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mbexport.accuracy.trace import Trace
    from mbexport.reference import Reference

MANIFEST = "manifest.json"
MODEL = "model.onnx"
OPENVINO_MODEL = "model_openvino.onnx"
"""Beside the first where another form of the graph is more than 5% faster on OpenVINO."""
REFERENCE = "reference.npz"
TRACES = {MODEL: "trace.npz", OPENVINO_MODEL: "trace_openvino.npz"}
"""Samples of each graph's inner tensors, for ``validate --explain``: two files may give one name to two tensors."""
LABELS = "labels.json"
"""The classes in the order of the classifier's numbers, where they are known."""


@dataclass(frozen=True)
class Artifact:
    """A checked artifact folder."""

    path: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """Digest of ``model.onnx``, which names the network in profiles."""
        return self.manifest.files[MODEL]

    def model_path(self, target: str) -> Path:
        """The model file for a target such as ``openvino:cpu``: its own, else its engine's.

        Raises:
            ArtifactError: the manifest names none.
        """
        models = self.manifest.models
        name = models.get(target) or models.get(target.partition(":")[0])
        if name is None:
            raise ArtifactError(f"{self.path} has no model for {target}, only for {', '.join(models)}; build it again")
        return self.path / name


def read_artifact(path: Path) -> Artifact:
    """Open a folder and check every file against the manifest.

    Raises:
        ArtifactError: not a folder, not an artifact, a file missing, altered, or named outside the folder.
        DocumentError: a manifest that is malformed or of a newer schema version.
    """
    if not path.is_dir():
        raise ArtifactError(f"{path} is not an artifact folder; make one with: mbexport build")
    if not (path / MANIFEST).is_file():
        raise ArtifactError(f"{path} holds no {MANIFEST}, so it is not an artifact; make one with: mbexport build")
    manifest = serde.read_document(path / MANIFEST, Manifest, SCHEMA_VERSION)
    if not manifest.outputs:
        raise ArtifactError(f"{path / MANIFEST} names no outputs; build the artifact again")
    for name in (MODEL, REFERENCE, *manifest.models.values()):
        if name not in manifest.files:
            raise ArtifactError(f"{path / MANIFEST} lists no digest for {name}; build the artifact again")
    for name, digest in manifest.files.items():
        _check_file(path, name, digest)
    return Artifact(path, manifest)


def read_reference(artifact: Artifact) -> Reference:
    """The probe inputs and Keras's answers.

    Raises:
        ArtifactError: the archive is damaged or lacks an array.
    """
    return read_npz(artifact.path / REFERENCE, artifact.manifest)


def read_trace(artifact: Artifact, model: str = MODEL) -> Trace:
    """What the tensors of a model file held when it was built.

    Raises:
        ArtifactError: the artifact has no trace, or a damaged one.
    """
    name = TRACES.get(model, "")
    if name not in artifact.manifest.files:
        raise ArtifactError(
            f"{artifact.path} holds no {TRACES[MODEL]}, which --explain needs; build the artifact again"
        )
    from mbexport.accuracy.trace import read_npz as read_trace_npz

    return read_trace_npz(artifact.path / name)


def read_labels(artifact: Artifact) -> list[Label] | None:
    """The classes in the order of the classifier's numbers; None where the artifact knows none.

    Raises:
        DocumentError: the file is malformed.
    """
    if LABELS not in artifact.manifest.files:
        return None
    return serde.read_document(artifact.path / LABELS, Labels, LABELS_VERSION).labels


def write_artifact(
    out: Path,
    manifest: Manifest,
    models: Mapping[str, bytes],
    reference: Reference,
    *,
    name: str | None = None,
    labels: list[Label] | None = None,
    traces: Mapping[str, Trace] | None = None,
) -> Artifact:
    """Write ``out/<slug>/`` whole or not at all, in the place of an older artifact of that name.

    ``manifest.files`` is filled in here. ``models`` maps file names, ``model.onnx`` among them, to serialised ONNX.
    ``name`` is the folder's, instead of the slug; ``labels`` are the classes, where they are known; ``traces`` are
    samples of what the tensors of each model file held.

    Raises:
        OutputError: the place cannot be written to, or something that is not an artifact stands there.
    """
    target = out / (name or manifest.slug)
    refuse_foreign(target)
    contents = {**models, REFERENCE: npz_bytes(reference, manifest.input)}
    if labels is not None:
        contents[LABELS] = serde.json_bytes(Labels(labels=labels))
    if traces is not None:
        from mbexport.accuracy.trace import npz_bytes as trace_bytes

        contents |= {TRACES[file]: trace_bytes(tensors) for file, tensors in traces.items()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = msgspec.structs.replace(manifest, files=digests)
    contents[MANIFEST] = serde.json_bytes(manifest)
    with serde.atomic_folder(target) as fresh, serde.writing(target):
        for file, data in contents.items():
            (fresh / file).write_bytes(data)
    return Artifact(target, manifest)


def refuse_foreign(target: Path) -> None:
    """Raise :class:`OutputError` where building would replace something that is not an artifact, or holds more."""
    with serde.writing(target):
        if not target.is_symlink() and not target.exists():
            return
        if target.is_symlink() or not target.is_dir():
            what = "is a link" if target.is_symlink() else "exists and is not a folder"
            raise OutputError(f"{target} {what}; move it away or choose another --out")
        found = {path.name for path in target.iterdir()}
    foreign = sorted(found - _own_files(target / MANIFEST))
    if foreign:
        raise OutputError(
            f"{target} holds {foreign[0]}, which is no part of an artifact, and building would replace the folder; "
            "move it away or choose another --out"
        )


def _own_files(manifest: Path) -> set[str]:
    """The names that an artifact with this manifest holds; none where it is no artifact's manifest."""
    own = {MANIFEST, MODEL, REFERENCE}
    try:
        return own | set(serde.read_document(manifest, Manifest, SCHEMA_VERSION).files)
    except NewerSchemaError:
        return own  # a newer mbexport's artifact may be replaced too
    except DocumentError:
        return set()


def _check_file(folder: Path, name: str, digest: str) -> None:
    if Path(name).name != name or name in {"", ".", ".."}:
        raise ArtifactError(f"{folder / MANIFEST} names {name!r}, which lies outside the artifact")
    file = folder / name
    if file.is_symlink() or not file.is_file():
        raise ArtifactError(f"{folder} lacks {name}, which its manifest lists; build the artifact again")
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}") from error
    if found != digest:
        raise ArtifactError(
            f"{file} is not the file that was built: its sha256 is {found[:12]}..., "
            f"the manifest says {digest[:12]}...; build the artifact again"
        )
