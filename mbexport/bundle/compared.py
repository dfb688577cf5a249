"""An artifact that was made again against the one that it is to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from mbexport.artifact import LABELS, MODEL, read_reference
from mbexport.compare import sqnr_db
from mbexport.outputs import comparable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mbexport.artifact import Artifact
    from mbexport.reference import Reference

LEAST_FLOAT32_DB, LEAST_FLOAT64_DB = 100.0, 200.0
"""What other kernels and thread counts leave of Keras's answers: 118 dB and 290 dB were the least seen."""


class RebuiltPart(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must come out again."""

    artifact: str
    part: str
    result: Literal["same", "within tolerance", "differs"]
    detail: str | None = None


def compared(old: Artifact, fresh: Artifact) -> Iterator[RebuiltPart]:
    """Graphs, contract and labels to the byte, Keras's answers within the noise of their arithmetic."""
    slug = old.manifest.slug

    inside = old.manifest.spec is None and old.manifest.export.rescales_inside
    mend = "if it was converted with --input-range, give that here too" if inside else None

    def part(name: str, *, same: bool) -> RebuiltPart:
        return RebuiltPart(
            artifact=slug, part=name, result="same" if same else "differs", detail=None if same else mend
        )

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
