"""The artifact folder: ``model.onnx``, ``manifest.json``, ``reference.npz``; checked on reading, swapped in whole."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mbexport import serde
from mbexport.errors import ArtifactError, DocumentError, NewerSchemaError, OutputError
from mbexport.spec import SPATIAL_AXES, ExportOptions, Layout, ModelSpec, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
OPENVINO_MODEL = "model_openvino.onnx"
"""Beside the first where another form of the graph is more than 5% faster on OpenVINO."""
REFERENCE = "reference.npz"

OutputKind = Literal["probabilities", "logits", "features"]


class InputContract(msgspec.Struct, frozen=True, kw_only=True):
    """What the network expects. A picture ``p`` of 0..255 goes in as ``(p - mean) / scale``."""

    name: str
    shape: list[int | None]
    """None where any size goes: the batch, and height and width of a network of dynamic size."""
    layout: Layout
    type: str
    range: tuple[float, float]
    mean: float
    scale: float
    colour_order: str = "RGB"
    resize: str
    """Rule and filter, for instance "shorter side to 256, bilinear"."""
    crop: str
    multiple_of: int | msgspec.UnsetType = msgspec.UNSET
    """Height and width must be multiples of this, in pixels: at others the graph runs and is not Keras's network.
    Absent where they are fixed."""

    @property
    def is_dynamic(self) -> bool:
        """Whether height and width are left open."""
        return self.multiple_of is not msgspec.UNSET

    def size_of(self, pictures: NDArray[Any]) -> tuple[int, int]:
        """Height and width of pictures in this layout."""
        height, width = SPATIAL_AXES[self.layout]
        return pictures.shape[height], pictures.shape[width]


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
    """What one graph pass did. ``sqnr_db`` None means bit-equal outputs.

    ``skipped`` is the reason for a rollback. ``declined`` says why the graph is none that the pass takes on.
    """

    name: str
    modified: bool
    sqnr_db: float | None = None
    skipped: str | None = None
    declined: str | None = None


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
    others: tuple[Reference, ...] = ()
    """The same for pictures of other sizes, where height and width are dynamic."""

    @property
    def each(self) -> tuple[Reference, ...]:
        """One reference a size, this one first."""
        return (replace(self, others=()), *self.others)


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

    sizes: dict[str, dict[str, dict[str, NDArray[Any]]]] = {"": _no_arrays()}
    try:
        with np.load(artifact.path / REFERENCE, allow_pickle=False) as arrays:
            for key in arrays.files:
                size, group, name = _place(key)
                sizes.setdefault(size, _no_arrays())[group][name] = arrays[key]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{artifact.path / REFERENCE} cannot be read ({error}); build the artifact again"
        ) from error
    outputs = {output.name for output in artifact.manifest.outputs}
    for groups in sizes.values():
        if set(groups["float32"]) != outputs or set(groups["float64"]) != outputs or not groups["input"]:
            raise ArtifactError(f"{artifact.path / REFERENCE} does not hold the outputs that the manifest names")
    if artifact.manifest.input.is_dynamic and len(sizes) == 1:
        raise ArtifactError(
            f"{artifact.path / REFERENCE} holds one size of a network of dynamic size; build the artifact again"
        )
    first, *others = (Reference(groups["input"], groups["float32"], groups["float64"]) for groups in sizes.values())
    return replace(first, others=tuple(others))


def write_artifact(
    out: Path, manifest: Manifest, models: Mapping[str, bytes], reference: Reference, *, name: str | None = None
) -> Artifact:
    """Write ``out/<slug>/`` whole or not at all, in the place of an older artifact of that name.

    ``manifest.files`` is filled in here. ``models`` maps file names, ``model.onnx`` among them, to serialised ONNX.

    Raises:
        OutputError: the place cannot be written to, or something that is not an artifact stands there.
    """
    target = out / (name or manifest.slug)
    refuse_foreign(target)
    contents = {**models, REFERENCE: _npz(reference, manifest.input)}
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


def _npz(reference: Reference, contract: InputContract) -> bytes:
    """The first size's arrays as ``input/<name>`` and so on, each other size's as ``160x96/input/<name>``."""
    import numpy as np

    arrays = _arrays(reference, "")
    for other in reference.others:
        size = contract.size_of(next(iter(other.inputs.values())))
        arrays |= _arrays(other, f"{size_text(size)}/")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(reference: Reference, prefix: str) -> dict[str, NDArray[Any]]:
    groups: dict[str, Mapping[str, NDArray[Any]]] = {
        "input": reference.inputs,
        "float32": reference.keras_float32,
        "float64": reference.keras_float64,
    }
    return {f"{prefix}{group}/{name}": array for group, values in groups.items() for name, array in values.items()}


def _no_arrays() -> dict[str, dict[str, NDArray[Any]]]:
    return {"input": {}, "float32": {}, "float64": {}}


def _place(key: str) -> tuple[str, str, str]:
    """``input/x`` -> ("", input, x); ``160x96/input/x`` -> (160x96, input, x)."""
    head, _, rest = key.partition("/")
    if head in _no_arrays():
        return "", head, rest
    group, _, name = rest.partition("/")
    return head, group, name
