"""Top-1 and top-5 of an artifact on labelled pictures, on each runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mbexport.artifact import MANIFEST, read_artifact
from mbexport.catalog import find
from mbexport.classifier import ClassName, ClassNames, classifier_outputs
from mbexport.classify import classify
from mbexport.diagnose import refuse_wrong_contract
from mbexport.errors import ArtifactError, DocumentError, InputError
from mbexport.folders import labelled_set, take_evenly
from mbexport.images import picture_size
from mbexport.predict import FailedPicture, none_readable
from mbexport.quantities import Mode
from mbexport.shares import paired_drop, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.catalog import Published
    from mbexport.classify import Progress
    from mbexport.folders import LabelledPicture


class EvaluationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime's accuracy: shares of 1, each with its 95% confidence interval (low, high)."""

    runtime: str
    precision: str
    """What the engine says that it computed in: f32, tf32, bf16, f16 or int8."""
    top1: float
    top5: float
    top1_ci: tuple[float, float]
    top5_ci: tuple[float, float]
    float32_top1: float | None = None
    """On the same runtime, float32 pinned: of the artifact that a narrower one was made from, where that lies beside
    it; of the artifact itself where production computes a float32 file in a narrower precision. Else None."""
    top1_drop: float | None = None
    """``float32_top1`` minus ``top1``."""
    top1_drop_ci: tuple[float, float] | None = None
    """Of the pairs."""
    agreement: float | None = None
    """The share of pictures for which both hold the same class for the most probable."""
    agreement_ci: tuple[float, float] | None = None


class Answer(ClassName, frozen=True, kw_only=True):
    """The class that one runtime holds for the most probable."""

    runtime: str


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of which the runtimes' most probable classes differ."""

    path: str
    expected: ClassName
    top1: list[Answer]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came out; all but the two times is the same in every run."""

    artifact: str
    """The artifact's slug."""
    artifact_sha256: str
    """Of its model.onnx, as in the profiles that ``bench`` makes of it."""
    input_size: tuple[int, int] | None
    """Height and width in pixels of what was fed to a network of dynamic size; None where its own are fixed."""
    mode: Mode = "parity"
    images: int
    """How many pictures the shares are of: those that could be read."""
    rows: list[EvaluationRow]
    published_top1: float | None
    """The share published for such a network on ImageNet's validation set; None where there is none, as of files in a
    narrower precision than float32."""
    published_source: str | None
    disagreements: list[Disagreement]
    failed: list[FailedPicture]
    output: str
    """The network's output that was judged."""
    other_outputs: list[str]
    """Its other outputs that classify, which were not looked at."""
    note: str | None
    """How folders were matched with classes, where that could be wrong."""
    seconds: float
    """From when all sessions were open to the last picture."""
    images_per_s: float
    """Pictures per second, each on all the runtimes."""


def evaluate(
    artifact: Artifact,
    images: Path,
    targets: Sequence[str],
    *,
    threads: int,
    mode: Mode = "parity",
    limit: int | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Run labelled pictures through each target and count.

    Where an answer comes of a narrower precision than float32 and the float32 network is at hand, that one sees the
    same pictures: the artifact that a narrower one was made from, if it lies beside it, or the artifact itself.

    Args:
        artifact: a checked artifact of a network that classifies.
        images: a folder or CSV; see :func:`mbexport.folders.labelled_set`.
        targets: targets that are here; see :func:`mbexport.runtimes.resolve_targets`.
        threads: how many cores to keep busy.
        mode: parity pins the model files' precision, production keeps the engine's defaults.
        limit: at most so many pictures; see :func:`mbexport.folders.take_evenly`.
        progress: called a few times a second with how many pictures are done, and of how many; anew for the second.

    Raises:
        InputError: the network does not classify, the pictures' labels do not fit it, or no picture can be read.
        EngineError: a runtime cannot run the network.
        MissingError: an engine or device is not here.
    """
    refuse_wrong_contract(artifact)
    output, *others = classifier_outputs(artifact)
    names = ClassNames(artifact, output)
    if names.count < 2:
        raise InputError(f"{artifact.path} has a single class, so whatever it computes would count as right")
    found = labelled_set(images, names.count, names.labels)
    pictures = take_evenly(found.pictures, limit)
    paths = [each.path for each in pictures]
    classified = classify(artifact, output, paths, targets, threads=threads, mode=mode, progress=progress)
    failed = [FailedPicture(path=str(paths[at]), reason=reason) for at, reason in classified.failed.items()]
    if len(failed) == len(pictures):
        raise none_readable(failed)
    read = np.setdiff1d(np.arange(len(pictures)), list(classified.failed))
    labels = np.array([pictures[at].label for at in read])
    tops = [classified.top[read, at] for at in range(len(targets))]
    rows = [_row(*each, labels) for each in zip(targets, classified.precisions, tops, strict=True)]
    float32, damaged = _float32_of(artifact)
    narrower = [row.runtime for row in rows if float32 is not artifact or row.precision != "f32"]
    if float32 is not None and narrower:
        readable = [paths[at] for at in read]
        exact = classify(float32, output, readable, narrower, threads=threads, progress=progress).top[:, :, 0]
        rows = _beside_float32(rows, tops, dict(zip(narrower, exact.T, strict=True)), labels)
    published = _published(artifact)
    contract = artifact.manifest.input
    return EvaluationReport(
        artifact=artifact.manifest.slug,
        artifact_sha256=artifact.sha256,
        input_size=picture_size(contract) if contract.is_dynamic else None,
        mode=mode,
        images=len(read),
        rows=rows,
        published_top1=published.top1 if published else None,
        published_source=published.source if published else None,
        disagreements=list(_disagreements(pictures, classified.top[:, :, 0], targets, names)),
        failed=failed,
        output=output.name,
        other_outputs=[other.name for other in others],
        note="; ".join(filter(None, [found.note, damaged])) or None,
        seconds=classified.seconds,
        images_per_s=len(pictures) / classified.seconds,
    )


def _published(artifact: Artifact) -> Published | None:
    manifest = artifact.manifest
    if manifest.spec is None or manifest.weights.kind == "random" or manifest.precision != "f32":
        return None
    return find(manifest.spec)


def _float32_of(artifact: Artifact) -> tuple[Artifact | None, str | None]:
    """The artifact itself, or the one that a narrower one was made from, where that is still the folder beside it;
    and why it cannot be compared with, where that is damaged.
    """
    if artifact.manifest.precision == "f32":
        return artifact, None
    derivation, folder = artifact.manifest.derivation, artifact.path.resolve()
    source = folder.with_name(folder.name.removesuffix(f"_{artifact.manifest.precision}"))
    if derivation is None or source == folder or not (source / MANIFEST).is_file():
        return None, None
    try:
        found = read_artifact(source)
    except (ArtifactError, DocumentError) as error:
        return None, f"not compared with float32: {error}"
    return (found if found.sha256 == derivation.source_sha256 else None), None


def _beside_float32(
    rows: Sequence[EvaluationRow],
    tops: Sequence[NDArray[np.int32]],
    exact: Mapping[str, NDArray[np.int32]],
    labels: NDArray[np.int64],
) -> list[EvaluationRow]:
    """``tops`` are the rows' own (pictures, 5), ``exact`` float32's most probable classes by runtime."""
    return [
        _beside(row, top[:, 0], exact[row.runtime], labels) if row.runtime in exact else row
        for row, top in zip(rows, tops, strict=True)
    ]


def _beside(
    row: EvaluationRow, top1: NDArray[np.int32], exact: NDArray[np.int32], labels: NDArray[np.int64]
) -> EvaluationRow:
    """The row with what float32 answers, ``exact``, to the same pictures on the same runtime."""
    same, count = int((top1 == exact).sum()), len(labels)
    drop, drop_ci = paired_drop(exact == labels, top1 == labels)
    return msgspec.structs.replace(
        row,
        float32_top1=float((exact == labels).mean()),
        top1_drop=drop,
        top1_drop_ci=drop_ci,
        agreement=same / count,
        agreement_ci=wilson_interval(same, count),
    )


def _row(target: str, precision: str, top: NDArray[np.int32], labels: NDArray[np.int64]) -> EvaluationRow:
    """``top`` is (pictures, 5), best class first."""
    right = top == labels[:, None]
    hits, hits5, count = int(right[:, 0].sum()), int(right.any(axis=1).sum()), len(labels)
    return EvaluationRow(
        runtime=target,
        precision=precision,
        top1=hits / count,
        top5=hits5 / count,
        top1_ci=wilson_interval(hits, count),
        top5_ci=wilson_interval(hits5, count),
    )


def _disagreements(
    pictures: Sequence[LabelledPicture], top1: NDArray[np.int32], targets: Sequence[str], names: ClassNames
) -> Iterator[Disagreement]:
    """``top1`` is (pictures, targets)."""
    for at in np.flatnonzero((top1 != top1[:, :1]).any(axis=1)).tolist():
        yield Disagreement(
            path=str(pictures[at].path),
            expected=names.name(pictures[at].label),
            top1=[
                Answer(runtime=target, index=name.index, id=name.id, label=name.label)
                for target, name in zip(targets, map(names.name, top1[at].tolist()), strict=True)
            ],
        )
