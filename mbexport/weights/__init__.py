"""Where weights come from: ``random``, ``imagenet``, ``timm:FILE``, ``slim:PREFIX``, or a Keras file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.errors import SpecError, WeightsError

if TYPE_CHECKING:
    import keras

    from mbexport.manifest import WeightsOrigin
    from mbexport.spec import ModelSpec

PREFIXES = ("timm", "slim")
PRETRAINED_ACTIVATIONS = ("softmax", "none", "linear")
"""Keras's rule, for weights files too."""


def check(weights: str, spec: ModelSpec) -> None:
    """Everything that can be refused before TensorFlow is imported.

    Raises:
        MissingDownloadError: ImageNet's weights are neither in Keras's cache nor to be had.
        SpecError: no such weights were published for this network.
        WeightsError: a file that is missing or cannot be what it is said to be.
    """
    kind, path = split(weights)
    if kind != "random" and spec.include_top and spec.classifier_activation not in PRETRAINED_ACTIVATIONS:
        raise SpecError(
            f"a pretrained top goes with --classifier-activation softmax or none, not {spec.classifier_activation}; "
            "a whole model with another one is converted with: mbexport convert"
        )
    if kind == "imagenet":
        from mbexport.weights import imagenet

        imagenet.check(spec)
        imagenet.fetch(spec)  # before TensorFlow takes its seconds: without a network nothing else need be waited for
    elif kind == "timm":
        from mbexport.weights import timm

        timm.check(path, spec)
    elif kind == "slim":
        from mbexport.weights import slim

        slim.check(path, spec)
    elif kind == "file":
        from mbexport.weights.keras_file import check_path

        check_path(path)


def load(model: keras.Model, spec: ModelSpec, weights: str) -> WeightsOrigin:
    """Set every weight of ``model``, which is ``spec``'s; random weights are not loaded but made.

    Raises:
        MissingError: a download that cannot be had.
        WeightsError: a file that is damaged or of another network.
    """
    kind, path = split(weights)
    if kind == "imagenet":
        from mbexport.weights import imagenet

        return imagenet.load(model, spec)
    if kind == "timm":
        from mbexport.weights import timm

        return timm.load(model, spec, path)
    if kind == "slim":
        from mbexport.weights import slim

        return slim.load(model, spec, path)
    from mbexport.weights import keras_file

    return keras_file.load(model, path)


def digest(weights: str, spec: ModelSpec) -> str:
    """The sha256 that :func:`load` would give for the origin, of what :func:`check` found to be there.

    Raises:
        MissingError: a download that cannot be had.
        WeightsError: a file that cannot be read.
    """
    kind, path = split(weights)
    if kind == "slim":
        from mbexport.weights import slim

        return slim.sha256_of(slim.check(path, spec))
    if kind == "imagenet":
        from mbexport.weights import imagenet

        path = str(imagenet.fetch(spec))
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error


def split(weights: str) -> tuple[str, str]:
    """``timm:x.pth`` -> (timm, x.pth); ``random`` and ``imagenet`` have no path; all else is a Keras file."""
    if weights in {"random", "imagenet"}:
        return weights, ""
    kind, colon, path = weights.partition(":")
    return (kind, path) if colon and kind in PREFIXES else ("file", weights)


def absolute(weights: str) -> str:
    """The same with an absolute path, for a process in another folder."""
    return under(weights, Path.cwd())


def under(weights: str, folder: Path) -> str:
    """The same with a relative path made one of ``folder``."""
    kind, path = split(weights)
    if not path:
        return weights
    return str(folder / path) if kind == "file" else f"{kind}:{folder / path}"
