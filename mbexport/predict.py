"""Pictures -> the most probable classes, on each runtime."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from mbexport.classifier import ClassName, ClassNames, best, classifier_outputs, open_classifier
from mbexport.diagnose import refuse_wrong_contract
from mbexport.errors import InputError, PictureError
from mbexport.images import picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact


class Guess(ClassName, frozen=True, kw_only=True):
    """A class, and how probable the network holds it, 0..1."""

    probability: float


class PredictionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime's most probable classes, best first."""

    runtime: str
    precision: str
    """What the engine says that it computed in."""
    top: list[Guess]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One picture on every runtime."""

    path: str
    rows: list[PredictionRow]


class FailedPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that could not be read, and why."""

    path: str
    reason: str


class PredictionReport(msgspec.Struct, frozen=True, kw_only=True):
    """All pictures, in the order in which they were given."""

    output: str
    """The network's output that the classes were read from."""
    other_outputs: list[str]
    """Its other outputs that classify, which were not looked at."""
    pictures: list[Prediction]
    failed: list[FailedPicture]


def predict(
    artifact: Artifact,
    paths: Sequence[Path],
    targets: Sequence[str],
    *,
    threads: int | None = None,
    top: int = 5,
    progress: Callable[[int], None] | None = None,
) -> PredictionReport:
    """The ``top`` most probable classes of each picture on each target, the model file's precision pinned.

    Args:
        artifact: a checked artifact of a network that classifies.
        paths: picture files; see :func:`mbexport.folders.named_pictures`.
        targets: targets that are here; see :func:`mbexport.runtimes.resolve_targets`.
        threads: threads for each engine; None leaves the engine's default.
        top: how many classes at most.
        progress: called after each picture with how many are done.

    Raises:
        InputError: the network does not classify, ``top`` is below one, or no picture can be read.
        EngineError: a runtime cannot run the network.
        MissingError: an engine or device is not here.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, not {top}")
    refuse_wrong_contract(artifact)
    output, *others = classifier_outputs(artifact)
    names = ClassNames(artifact, output)
    predictions, failed = [], []
    with ExitStack() as stack:
        opened = {target: stack.enter_context(open_classifier(artifact, target, output, threads)) for target in targets}
        precisions = {target: classifier.precision() for target, classifier in opened.items()}
        for count, path in enumerate(paths, 1):
            try:
                shown = picture(path, artifact.manifest.input)[None]
            except PictureError as error:
                failed.append(FailedPicture(path=str(path), reason=error.reason))
            else:
                rows = [
                    PredictionRow(
                        runtime=target,
                        precision=precisions[target],
                        top=_guesses(classifier.probabilities(shown)[0], top, names),
                    )
                    for target, classifier in opened.items()
                ]
                predictions.append(Prediction(path=str(path), rows=rows))
            if progress is not None:
                progress(count)
    if not predictions:
        raise none_readable(failed)
    return PredictionReport(
        output=output.name, other_outputs=[other.name for other in others], pictures=predictions, failed=failed
    )


def none_readable(failed: Sequence[FailedPicture]) -> InputError:
    """The error for a set of which no picture can be read."""
    if not failed:
        return InputError("no pictures were given")
    others = f"; nor can the other {len(failed) - 1}" if len(failed) > 1 else ""
    return InputError(f"{failed[0].path} {failed[0].reason}{others}")


def _guesses(probabilities: NDArray[np.float64], top: int, names: ClassNames) -> list[Guess]:
    chosen = (names.name(int(index)) for index in best(probabilities[None], top)[0])
    return [
        Guess(index=name.index, id=name.id, label=name.label, probability=float(probabilities[name.index]))
        for name in chosen
    ]
