"""The artifact folder: ``model.onnx``, ``manifest.json``, ``reference.npz``; checked on reading, swapped in whole."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mbexport import serde
from mbexport.errors import ArtifactError, DocumentError, NewerSchemaError, OutputError
from mbexport.spec import ExportOptions, Layout, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
REFERENCE = "reference.npz"

OutputKind = Literal["probabilities", "logits", "features"]


class InputContract(msgspec.Struct, frozen=True, kw_only=True):
    """What the network expects. A picture ``p`` of 0..255 goes in as ``(p - mean) / scale``."""

    name: str
    shape: list[int | None]
    layout: Layout
    type: str
    range: tuple[float, float]
    mean: float
    scale: float
    colour_order: str = "RGB"
    resize: str
    """Rule and filter, for instance "shorter side to 256, bilinear"."""
    crop: str


class OutputContract(msgspec.Struct, frozen=True, kw_only=True):
    """One output: its tensor name and what its numbers are."""

    name: str
    shape: list[int | None]
    kind: OutputKind


RANDOM_NOTE = "random weights: for graph and latency only"


class WeightsOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights come from. ``sha256`` is a file's digest, None for random weights."""

    kind: Literal["random", "keras-file"]
    seed: int | None = None
    file: str | None = None
    sha256: str | None = None
    note: str | None = None
    """What the weights must not be used for."""


class PassReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one graph pass did. ``sqnr_db`` None means bit-equal outputs; ``skipped`` is the reason for a rollback."""

    name: str
    modified: bool
    sqnr_db: float | None = None
    skipped: str | None = None


class GraphReport(msgspec.Struct, frozen=True, kw_only=True):
    """The graph before (``*_before``) and after the passes, and each pass."""

    nodes: int
    ops: dict[str, int]
    nodes_before: int
    ops_before: dict[str, int]
    passes: list[PassReport]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``. ``files`` maps name to sha256; ``models`` maps an engine or target to its model file."""

    schema_version: int = SCHEMA_VERSION
    slug: str
    spec: ModelSpec
    export: ExportOptions
    weights: WeightsOrigin
    input: InputContract
    outputs: list[OutputContract]
    graph: GraphReport
    models: dict[str, str]
    files: dict[str, str]
    tools: dict[str, str]


@dataclass(frozen=True)
class Reference:
    """Probe inputs and Keras's answers, each by tensor name: float32 inputs, float32 outputs, float64 ground truth."""

    inputs: Mapping[str, NDArray[np.float32]]
    keras_float32: Mapping[str, NDArray[np.float32]]
    keras_float64: Mapping[str, NDArray[np.float64]]


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
    for name in (MODEL, REFERENCE, *manifest.models.values()):
        if name not in manifest.files:
            raise ArtifactError(f"{path / MANIFEST} lists no digest for {name}; build the artifact again")
    for name, digest in manifest.files.items():
        _check_file(path, name, digest)
    return Artifact(path, manifest)


def read_reference(artifact: Artifact) -> Reference:
    """Read ``reference.npz`` (never unpickling anything).

    Raises:
        ArtifactError: the archive is damaged or lacks an array.
    """
    import numpy as np

    groups: dict[str, dict[str, NDArray[np.float64]]] = {"input": {}, "float32": {}, "float64": {}}
    try:
        with np.load(artifact.path / REFERENCE, allow_pickle=False) as arrays:
            for key in arrays.files:
                group, _, name = key.partition("/")
                groups[group][name] = arrays[key]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{artifact.path / REFERENCE} cannot be read ({error}); build the artifact again"
        ) from error
    outputs = {output.name for output in artifact.manifest.outputs}
    if set(groups["float32"]) != outputs or set(groups["float64"]) != outputs or not groups["input"]:
        raise ArtifactError(f"{artifact.path / REFERENCE} does not hold the outputs that the manifest names")
    return Reference(groups["input"], groups["float32"], groups["float64"])  # type: ignore[arg-type]


def write_artifact(
    out: Path, manifest: Manifest, model: bytes, reference: Reference, *, name: str | None = None
) -> Artifact:
    """Write ``out/<slug>/`` whole or not at all, in the place of an older artifact of that name.

    ``manifest.files`` is filled in here. ``model`` is the serialised ONNX file.

    Raises:
        OutputError: the place cannot be written to, or something that is not an artifact stands there.
    """
    target = out / (name or manifest.slug)
    refuse_foreign(target)
    contents = {MODEL: model, REFERENCE: _npz(reference)}
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
            raise OutputError(f"{target} exists and is not a folder; move it away or choose another --out")
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


def _npz(reference: Reference) -> bytes:
    import numpy as np

    groups: dict[str, Mapping[str, NDArray[Any]]] = {
        "input": reference.inputs,
        "float32": reference.keras_float32,
        "float64": reference.keras_float64,
    }
    arrays: dict[str, NDArray[Any]] = {
        f"{group}/{name}": array for group, values in groups.items() for name, array in values.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
