"""What is compared: seven networks, and for each the files that mbexport and its peers make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbexport.spec import ModelSpec

Engine = Literal["ort", "openvino", "litert"]


@dataclass(frozen=True)
class Cell:
    """One network: in mbexport's words, and timm's name for it."""

    spec: ModelSpec
    timm_name: str

    @property
    def slug(self) -> str:
        return self.spec.slug

    @property
    def has_gates(self) -> bool:
        """Whether hard-swish and squeeze-excite are in it, which the standard export takes apart."""
        return self.spec.is_v3 and not self.spec.minimalistic


@dataclass(frozen=True)
class Candidate:
    """One file on one engine. ``step`` is what ``prepare`` makes the file by."""

    engine: Engine
    step: str
    label: str
    gates_only: bool = False
    """Whether it differs from another candidate only in networks with gates."""

    @property
    def key(self) -> str:
        return f"{self.engine}/{self.step}"


CELLS = (
    Cell(ModelSpec(variant="large"), "tf_mobilenetv3_large_100"),
    Cell(ModelSpec(variant="large", alpha=0.75), "tf_mobilenetv3_large_075"),
    Cell(ModelSpec(variant="large", minimalistic=True), "tf_mobilenetv3_large_minimal_100"),
    Cell(ModelSpec(variant="small"), "tf_mobilenetv3_small_100"),
    Cell(ModelSpec(variant="small", alpha=0.75), "tf_mobilenetv3_small_075"),
    Cell(ModelSpec(variant="small", minimalistic=True), "tf_mobilenetv3_small_minimal_100"),
    Cell(ModelSpec(variant="v2"), "mobilenetv2_100"),
)

CANDIDATES = (
    Candidate("ort", "mbexport", "mbexport"),
    Candidate("ort", "keras_onnx", "Keras export to ONNX"),
    Candidate("ort", "keras_fresh", "Keras export to ONNX, a zero bias", gates_only=True),
    Candidate("ort", "onnxslim", "Keras export, onnxslim"),
    Candidate("ort", "onnxsim", "Keras export, onnxsim"),
    Candidate("ort", "timm", "timm, torch export"),
    Candidate("openvino", "mbexport", "mbexport"),
    Candidate("openvino", "keras_onnx", "Keras export to ONNX"),
    Candidate("openvino", "keras_fresh", "Keras export to ONNX, a zero bias", gates_only=True),
    Candidate("openvino", "onnxslim", "Keras export, onnxslim"),
    Candidate("openvino", "onnxsim", "Keras export, onnxsim"),
    Candidate("openvino", "timm", "timm, torch export"),
    Candidate("openvino", "saved_model", "OpenVINO from SavedModel"),
    Candidate("openvino", "keras_openvino", "Keras export to OpenVINO"),
    Candidate("litert", "litert", "LiteRT, XNNPACK"),
)

RUNTIMES: dict[Engine, str] = {"ort": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}


def candidates_of(cell: Cell) -> list[Candidate]:
    return [candidate for candidate in CANDIDATES if cell.has_gates or not candidate.gates_only]


def ours(engine: Engine) -> Candidate:
    return next(candidate for candidate in CANDIDATES if candidate.engine == engine and candidate.step == "mbexport")


def cell_of(slug: str) -> Cell:
    return next(cell for cell in CELLS if cell.slug == slug)
