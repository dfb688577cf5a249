"""The networks that are quantised, and their artifacts, built where they are not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.artifact import Artifact, read_artifact
from mbexport.pipeline import build
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from mbexport.quantize.placement import Engine


@dataclass(frozen=True)
class Net:
    """A network, the file of its real weights if it has such, and the forms of its int8 file."""

    name: str
    spec: ModelSpec
    weights: str | None = None
    forms: tuple[Engine, ...] = ("openvino", "ort")

    def artifact(self, folder: Path, data: Path) -> Artifact:
        """``folder/real/<slug>`` or ``folder/random/<slug>``."""
        out = folder / ("real" if self.weights else "random")
        if not (out / self.spec.slug).exists():
            weights = str(data / "weights" / self.weights) if self.weights else "random"
            build(self.spec, weights=weights, out=out)
        return read_artifact(out / self.spec.slug)


SMALL = Net("V3 Small", ModelSpec(variant="small"), "mobilenet_v3_small_1.0_224.weights.h5")
V2 = Net("V2 1.0", ModelSpec(variant="v2"), "mobilenet_v2_1.0_224.weights.h5", ("ort",))
LARGE = Net("V3 Large", ModelSpec(variant="large"))
LARGE_075 = Net("V3 Large 0.75", ModelSpec(variant="large", alpha=0.75))
REAL = (SMALL, V2)
RANDOM = (
    LARGE,
    LARGE_075,
    Net("V3 Large minimalistic", ModelSpec(variant="large", minimalistic=True), forms=("ort",)),
    Net("V3 Small minimalistic", ModelSpec(variant="small", minimalistic=True), forms=("ort",)),
)
ALL = (*REAL, *RANDOM)
