"""A bundle made again from its own manifests: graphs, contract and labels to the byte; evidence is carried over."""

from __future__ import annotations

import importlib.metadata
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport.artifact import LABELS, read_artifact, read_reference
from mbexport.bundle.compared import RebuiltPart, compared
from mbexport.bundle.evidence import read_evidence
from mbexport.bundle.golden import bmp
from mbexport.bundle.make import Contents, refuse_place, write
from mbexport.bundle.unpack import unpacked
from mbexport.errors import BundleError, InputError, MissingPackageError
from mbexport.spec import SPATIAL_AXES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.artifact import Artifact
    from mbexport.bundle.unpack import Unpacked
    from mbexport.manifest import Manifest

_MADE_HERE = ("random", "imagenet")


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """``passed``: every part is the same or within its tolerance. ``identical``: so is every byte of the file."""

    passed: bool
    identical: bool
    bundle: str
    sha256: str
    parts: list[RebuiltPart]


@dataclass(frozen=True)
class Given:
    """What a manifest names or describes and does not hold."""

    weights: Path | None = None
    """The file that the weights came from, where they are not random or Keras's own."""
    images: Path | None = None
    """A folder with the pictures that calibrated an int8 or f16 artifact."""
    input_range: tuple[float, float] | None = None
    """As :func:`mbexport.pipeline.convert` was given it, of a network that rescales inside; its graph says it else."""
    allow_unsafe: bool = False
    """Run the code in ``weights``, as there."""


def rebuild(
    path: Path, out: Path, given: Given | None = None, *, progress: Callable[[str], None] | None = None
) -> RebuildReport:
    """Build every artifact of a bundle again, compare, and write the bundle anew with the old evidence, unsigned.

    Args:
        path: the bundle.
        out: the file to write; written whether it passes or not, for it shows what came out.
        given: what it takes besides the bundle.
        progress: told what is being done.

    Raises:
        ArtifactError: an artifact in it is not whole.
        BundleError: damaged, altered or hostile.
        ConversionError: the network cannot be converted any more.
        InputError: weights or pictures are needed, or are others than those that it was made with.
        MissingPackageError: the ``build`` extra, or a tool of the version that it was made with, is not installed.
        OutputError: ``out`` cannot be written to.
    """
    tell, given = progress or (lambda _message: None), given or Given()
    kept = [path] if given.weights is None else [path, given.weights]
    refuse_place(out, kept, searched=[] if given.images is None else [given.images])
    with unpacked(path) as old, tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        for artifact in old.artifacts:
            _refuse_other_name(path, artifact.manifest)
            _refuse_other_tools(artifact.manifest)
            _refuse_missing(artifact.manifest, given)
        _refuse_needless([artifact.manifest for artifact in old.artifacts], given)
        builder = _Builder(Path(folder), given, tell)
        fresh = [builder.artifact(artifact) for artifact in old.artifacts]
        parts = [part for pair in zip(old.artifacts, fresh, strict=True) for part in compared(*pair)]
        report = write(_contents(old, fresh), out, None)
    return RebuildReport(
        passed=all(part.result != "differs" for part in parts),
        identical=out.read_bytes() == path.read_bytes(),
        bundle=str(out),
        sha256=report.sha256,
        parts=parts,
    )


def _contents(old: Unpacked, fresh: list[Artifact]) -> Contents:
    evidence = {artifact.manifest.slug: read_evidence(old.root, artifact) for artifact in old.artifacts}
    return Contents(
        artifacts=fresh,
        validations={slug: validation for slug, (validation, _) in evidence.items()},
        profiles={slug: profiles for slug, (_, profiles) in evidence.items()},
    )


def _refuse_other_name(path: Path, manifest: Manifest) -> None:
    """A built network's name follows from its spec."""
    narrower = "" if manifest.precision == "f32" else f"_{manifest.precision}"
    if manifest.spec is not None and manifest.slug != f"{manifest.spec.slug}{narrower}":
        raise BundleError(f"{path}: {manifest.slug} is not what its spec is called, {manifest.spec.slug}{narrower}")


def _refuse_other_tools(manifest: Manifest) -> None:
    """Tools write their versions into the graph, and other versions write other graphs."""
    for name, version in manifest.tools.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            raise MissingPackageError(
                f"{manifest.slug} was made with {name} {version}, and here it is {here}; "
                f"pip install '{name}=={version}'"
            )


def _refuse_missing(manifest: Manifest, given: Given) -> None:
    """What would only show after the minutes that building takes."""
    if manifest.weights.kind not in _MADE_HERE and given.weights is None:
        origin = manifest.weights
        named = f"{origin.file or 'a file'} (sha256 {(origin.sha256 or '')[:12]}...)"
        raise InputError(f"{manifest.slug} was made of {named}: give it with --weights")
    if manifest.derivation is not None and given.images is None:
        raise InputError(f"{manifest.slug} was calibrated on pictures: give their folder with --images")


def _refuse_needless(manifests: Sequence[Manifest], given: Given) -> None:
    own = any(manifest.spec is None for manifest in manifests)
    made_of_files = any(manifest.weights.kind not in _MADE_HERE for manifest in manifests)
    calibrated = any(manifest.derivation is not None for manifest in manifests)
    for option, value, is_read, what in (
        ("--weights", given.weights, made_of_files, "artifacts made of a file"),
        ("--images", given.images, calibrated, "int8 and f16 artifacts"),
        ("--input-range", given.input_range, own, "networks of a user's own"),
        ("--allow-unsafe", given.allow_unsafe or None, own, "networks of a user's own"),
    ):
        if value is not None and not is_read:
            raise InputError(f"{option} is for {what}, and this bundle has none")


def _size(manifest: Manifest) -> tuple[int, int]:
    """Height and width of a user's own network."""
    height, width = (manifest.input.shape[axis] for axis in SPATIAL_AXES[manifest.input.layout])
    if height is None or width is None:
        raise InputError(f"{manifest.slug} has neither a spec nor a size of its own to be made in")
    return height, width


class _Builder:
    """Builds artifacts in one folder, a float32 one once, whatever is made of it."""

    def __init__(self, folder: Path, given: Given, tell: Callable[[str], None]) -> None:
        self._folder, self._given, self._tell = folder, given, tell
        self._built: dict[str, Artifact] = {}

    def artifact(self, old: Artifact) -> Artifact:
        manifest = old.manifest
        if manifest.derivation is None:
            return self._float32(old, manifest.slug)
        from mbexport.quantize.again import made_again
        from mbexport.quantize.derive import write_narrower

        source = self._float32(old, manifest.slug.removesuffix(f"_{manifest.precision}"))
        if source.sha256 != manifest.derivation.source_sha256:
            raise InputError(f"{manifest.slug} was made of another float32 network than its manifest leads to")
        assert self._given.images is not None, "refused before"
        self._tell(f"make {manifest.slug}")
        models = made_again(source, manifest.derivation, self._given.images)
        return write_narrower(source, self._folder / manifest.slug, manifest.precision, models, manifest.derivation)

    def _float32(self, old: Artifact, slug: str) -> Artifact:
        if slug not in self._built:
            self._built[slug] = self._build(old, slug)
        return self._built[slug]

    def _build(self, old: Artifact, slug: str) -> Artifact:
        """The float32 network that an artifact is, or was made of: its manifest says all of it."""
        from mbexport.pipeline import build, convert

        manifest = old.manifest
        labels = old.path / LABELS if LABELS in manifest.files else None
        golden = self._golden(old)
        out = self._folder / f"{slug}-out"
        tell: Callable[[str], None] = lambda what: self._tell(f"{slug}: {what}")  # noqa: E731
        if manifest.spec is not None:
            weights, seed = self._named_weights(manifest), manifest.weights.seed or 0
            made = build(
                manifest.spec,
                export=manifest.export,
                weights=weights,
                seed=seed,
                out=out,
                labels=labels,
                golden=golden,
                progress=tell,
            )
        else:
            assert self._given.weights is not None, "refused before"
            made = convert(
                self._given.weights,
                name=slug,
                size=_size(manifest),
                allow_unsafe=self._given.allow_unsafe,
                export=manifest.export,
                out=out,
                labels=labels,
                golden=golden,
                input_range=self._given.input_range
                or (None if manifest.export.rescales_inside else manifest.input.range),
                progress=tell,
            )
        artifact = read_artifact(made.artifact.path)
        if artifact.manifest.weights.sha256 != manifest.weights.sha256:
            raise InputError(f"--weights {self._given.weights} is not the file that {slug} was made of, by its sha256")
        return artifact

    def _named_weights(self, manifest: Manifest) -> str:
        kind = manifest.weights.kind
        if kind in _MADE_HERE:
            return kind
        assert self._given.weights is not None, "refused before"
        source = self._given.weights
        return str(source) if kind == "keras-file" else f"{kind}:{source}"

    def _golden(self, old: Artifact) -> Path | None:
        """A folder with the artifact's golden pictures, as ``--golden`` takes them."""
        if not old.manifest.golden:
            return None
        folder = self._folder / f"{old.manifest.slug}-golden"
        folder.mkdir()
        for number, kept in enumerate(read_reference(old).golden):
            (folder / f"{number}.bmp").write_bytes(bmp(kept.picture, old.manifest.input))
        return folder
