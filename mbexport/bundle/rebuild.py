"""A bundle made again from its own manifests: graphs, contract and labels to the byte; evidence is carried over."""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from mbexport import serde
from mbexport.artifact import LABELS, MODEL, read_artifact, read_reference
from mbexport.bundle.evidence import read_evidence
from mbexport.bundle.golden import bmp
from mbexport.bundle.make import Contents, write
from mbexport.bundle.unpack import unpacked
from mbexport.compare import sqnr_db
from mbexport.errors import BundleError, InputError, MissingPackageError
from mbexport.outputs import comparable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mbexport.artifact import Artifact
    from mbexport.bundle.unpack import Unpacked
    from mbexport.manifest import Manifest
    from mbexport.reference import Reference

_MADE_HERE = ("random", "imagenet")
LEAST_FLOAT32_DB, LEAST_FLOAT64_DB = 100.0, 200.0
"""What other kernels and thread counts leave of Keras's answers: 118 dB and 290 dB were the least seen."""


class RebuiltPart(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must come out again."""

    artifact: str
    part: str
    result: Literal["same", "within tolerance", "differs"]
    detail: str | None = None


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """``passed``: every part is the same or within its tolerance. ``identical``: so is every byte of the file."""

    passed: bool
    identical: bool
    bundle: str
    sha256: str
    parts: list[RebuiltPart]


def rebuild(
    path: Path,
    out: Path,
    *,
    weights: Path | None = None,
    images: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> RebuildReport:
    """Build every artifact of a bundle again, compare, and write the bundle anew with the old evidence, unsigned.

    Args:
        path: the bundle.
        out: the file to write; written whether it passes or not, for it shows what came out.
        weights: the file that the weights came from, where they are not random or Keras's own.
        images: a folder with the pictures that calibrated an int8 or f16 artifact.
        progress: told what is being done.

    Raises:
        ArtifactError: an artifact in it is not whole.
        BundleError: damaged, altered or hostile.
        ConversionError: the network cannot be converted any more.
        InputError: weights or pictures are needed, or are others than those that it was made with.
        MissingPackageError: the ``build`` extra, or a tool of the version that it was made with, is not installed.
        OutputError: ``out`` cannot be written to.
    """
    tell = progress or (lambda _message: None)
    if out.exists() and path.exists() and out.samefile(path):
        raise InputError(f"--out {out} is the bundle itself; give the new one another name")
    serde.refuse_unwritable(out.absolute().parent)
    with unpacked(path) as old, tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        for artifact in old.artifacts:
            _refuse_other_name(path, artifact.manifest)
            _refuse_other_tools(artifact.manifest)
            _refuse_missing(artifact.manifest, weights, images)
        builder = _Builder(Path(folder), weights, images, tell)
        fresh = [builder.artifact(artifact) for artifact in old.artifacts]
        parts = [part for pair in zip(old.artifacts, fresh, strict=True) for part in _compared(*pair)]
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


def _refuse_missing(manifest: Manifest, weights: Path | None, images: Path | None) -> None:
    """What would only show after the minutes that building takes."""
    if manifest.weights.kind not in _MADE_HERE and weights is None:
        origin = manifest.weights
        named = f"{origin.file or 'a file'} (sha256 {(origin.sha256 or '')[:12]}...)"
        raise InputError(f"{manifest.slug} was made of {named}: give it with --weights")
    if manifest.derivation is not None and images is None:
        raise InputError(f"{manifest.slug} was calibrated on pictures: give their folder with --images")


class _Builder:
    """Builds artifacts in one folder, a float32 one once, whatever is made of it."""

    def __init__(self, folder: Path, weights: Path | None, images: Path | None, tell: Callable[[str], None]) -> None:
        self._folder, self._weights, self._images, self._tell = folder, weights, images, tell
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
        assert self._images is not None, "refused before"
        self._tell(f"make {manifest.slug}")
        models = made_again(source, manifest.derivation, self._images)
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
            assert self._weights is not None, "refused before"
            contract = manifest.input
            made = convert(
                self._weights,
                name=slug,
                export=manifest.export,
                out=out,
                labels=labels,
                golden=golden,
                input_range=None if manifest.export.rescales_inside else contract.range,
                progress=tell,
            )
        artifact = read_artifact(made.artifact.path)
        if artifact.manifest.weights.sha256 != manifest.weights.sha256:
            raise InputError(f"--weights {self._weights} is not the file that {slug} was made of, by its sha256")
        return artifact

    def _named_weights(self, manifest: Manifest) -> str:
        kind = manifest.weights.kind
        if kind in _MADE_HERE:
            return kind
        assert self._weights is not None, "refused before"
        source = self._weights
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


def _compared(old: Artifact, fresh: Artifact) -> Iterator[RebuiltPart]:
    slug = old.manifest.slug

    def part(name: str, *, same: bool) -> RebuiltPart:
        return RebuiltPart(artifact=slug, part=name, result="same" if same else "differs")

    for name in sorted({MODEL, *old.manifest.models.values()}):
        yield part(name, same=old.manifest.files[name] == fresh.manifest.files.get(name))
    contracts = [(one.manifest.input, one.manifest.outputs) for one in (old, fresh)]
    yield part("contract", same=contracts[0] == contracts[1])
    yield part(LABELS, same=old.manifest.files.get(LABELS) == fresh.manifest.files.get(LABELS))
    yield _references(old, fresh)


def _references(old: Artifact, fresh: Artifact) -> RebuiltPart:
    """Keras's answers again, on the same inputs; each number of them may stand so far from the old one."""
    slug, name = old.manifest.slug, "reference"
    pairs = list(zip(read_reference(old).each, read_reference(fresh).each, strict=False))
    if len(read_reference(old).each) != len(read_reference(fresh).each) or not all(
        _same_inputs(*pair) for pair in pairs
    ):
        return RebuiltPart(artifact=slug, part=name, result="differs", detail="other inputs")
    worst: list[tuple[float, str]] = []
    for output in old.manifest.outputs:
        for was, now in pairs:
            for kind, least in (("keras_float32", LEAST_FLOAT32_DB), ("keras_float64", LEAST_FLOAT64_DB)):
                arrays = [getattr(one, kind)[output.name] for one in (was, now)]
                distance = sqnr_db(*comparable(output, *arrays))
                worst.append((distance - least, f"{output.name}, {kind}: {distance:.1f} dB, least {least:g}"))
    margin, detail = min(worst)
    if margin == np.inf:
        return RebuiltPart(artifact=slug, part=name, result="same")
    result: Literal["within tolerance", "differs"] = "within tolerance" if margin >= 0 else "differs"
    return RebuiltPart(artifact=slug, part=name, result=result, detail=detail)


def _same_inputs(was: Reference, now: Reference) -> bool:
    return set(was.inputs) == set(now.inputs) and all(
        np.array_equal(array, now.inputs[name]) for name, array in was.inputs.items()
    )
