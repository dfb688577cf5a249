"""What decides an answer's accuracy: the artifact, its model file, the runtime and its mode."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.artifact import MANIFEST, read_artifact
from mbexport.errors import ArtifactError, DocumentError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.quantities import Mode

NARROWER = ("int8", "f16")
"""Precisions whose artifacts lie beside the float32 one, its name and the precision's behind it."""
_MODES: tuple[Mode, ...] = ("parity", "production")


@dataclass(frozen=True)
class Variant:
    """One model file on one runtime in one mode."""

    artifact: Artifact
    model: str
    """The file's name."""
    target: str
    mode: Mode

    @property
    def path(self) -> Path:
        return self.artifact.path / self.model

    @property
    def is_float32(self) -> bool:
        """Whether it computes in float32 by its very definition."""
        return self.artifact.manifest.precision == "f32" and self.mode == "parity"

    @property
    def is_own(self) -> bool:
        """Whether the manifest names this file for this runtime."""
        return self.artifact.model_path(self.target) == self.path

    def __hash__(self) -> int:
        return hash((self.artifact.path, self.model, self.target, self.mode))


def family(artifact: Artifact) -> tuple[list[Artifact], list[str]]:
    """The artifact and those of narrower precision that were made of it and lie beside it; why others do not count.

    Raises:
        InputError: it is not in float32 itself.
    """
    manifest = artifact.manifest
    if manifest.precision != "f32":
        raise InputError(
            f"{artifact.path} is {manifest.precision}; give the float32 artifact that it was made of, whose narrower "
            "siblings are tried with it"
        )
    place = artifact.path.absolute()
    if place.name == "..":
        place = place.resolve()
    found, notes = [artifact], []
    for name in NARROWER:
        folder = place.with_name(f"{place.name}_{name}")
        if not (folder / MANIFEST).is_file():
            if name == "int8":
                notes.append(f"no {folder.name} beside it: mbexport quantize {artifact.path} --images DIR makes one")
            continue
        try:
            sibling = read_artifact(folder)
        except (ArtifactError, DocumentError) as error:
            notes.append(f"left out: {error}")
            continue
        reason = _unfit(artifact, sibling)
        if reason is None:
            found.append(sibling)
        else:
            notes.append(f"{folder.name} is left out: {reason}")
    return found, notes


def variants_of(artifacts: Sequence[Artifact], targets: Sequence[str]) -> list[Variant]:
    """Every model file on every runtime in both modes; those of the float32 artifact first, and of these parity's.

    A file made for one engine may be the faster one on another, too.
    """
    found = [
        Variant(artifact, model, target, mode)
        for artifact in artifacts
        for model, target, mode in itertools.product(
            dict.fromkeys(artifact.manifest.models.values()), dict.fromkeys(targets), _MODES
        )
    ]
    return sorted(
        found, key=lambda each: (not each.is_float32, each.artifact.manifest.precision != "f32", not each.is_own)
    )


def _unfit(artifact: Artifact, sibling: Artifact) -> str | None:
    """Why a sibling does not stand for the artifact."""
    derivation = sibling.manifest.derivation
    if derivation is None:
        return "its manifest does not say what it was made of"
    if derivation.source_sha256 != artifact.sha256:
        return (
            f"it was made of another model.onnx (sha256 {derivation.source_sha256[:12]}..., "
            f"here {artifact.sha256[:12]}...); make it again with: mbexport quantize"
        )
    own, other = artifact.manifest, sibling.manifest
    if (own.input, own.outputs) != (other.input, other.outputs):
        return "its inputs or outputs are not the artifact's"
    return None
