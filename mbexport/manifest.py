"""``manifest.json``: what an artifact is, for machines. Structs alone, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mbexport.spec import SPATIAL_AXES, ExportOptions, InputType, Layout, ModelSpec, Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 1

TOOLS = ("mbexport", "tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxscript", "numpy")
"""Distributions that a built graph depends on."""

OutputKind = Literal["probabilities", "logits", "features"]


class InputContract(msgspec.Struct, frozen=True, kw_only=True):
    """What the network expects. A picture ``p`` of 0..255 goes in as ``(p - mean) / scale``."""

    name: str
    shape: list[int | None]
    """None where any size goes: the batch, and height and width of a network of dynamic size."""
    layout: Layout
    type: InputType
    range: tuple[float, float]
    mean: float
    scale: float
    colour_order: str = "RGB"
    resize: str
    """Rule and filter, for instance "shorter side to 256, bilinear"."""
    resize_px: int | None = None
    """The same for machines: the picture is made to cover a rectangle of the crop's proportions whose shorter side has
    so many pixels; None where any size goes."""
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

    kind: Literal["random", "keras-file", "imagenet", "timm", "slim", "keras-model", "saved-model"]
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


class RankedClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class by its number, and its name where that is known."""

    index: int
    name: str | None = None


class GoldenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one golden picture; the picture itself lies in ``reference.npz``."""

    top5: list[RankedClass]
    """The likeliest first; none where the network does not classify."""


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of its activations' shapes a network shows on its reference inputs."""

    activations: int
    """Nodes with at least one knee."""
    knees: int
    crossed: int
    """Knees with values on both sides."""
    missed: list[str]
    """The others, such as ``expanded_conv_3/Clip at 6``."""


class QuantizedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model file of a narrower precision."""

    islands: list[str]
    """Nodes left in float32, by name."""
    ranges: dict[str, tuple[float, float]] = {}
    """Tensor -> the least and the greatest number that its 8 bits tell apart, of any channel; none in f16."""
    sqnr_db: dict[str, float | None]
    """Output -> SQNR of the file, computed as it says, against Keras's float64 on the reference pictures; None where it
    is equal."""


class Derivation(msgspec.Struct, frozen=True, kw_only=True):
    """How an artifact of a narrower precision was made of one in float32."""

    source_sha256: str
    """Of the float32 artifact's ``model.onnx``."""
    method: str
    """In words, for the record."""
    pictures_sha256: list[str] = []
    """Of the calibration pictures' files, in the order in which they were used."""
    weight_levels: int | None = None
    """The largest 8-bit weight: 127, or 63 where an instruction set without VNNI or its like would saturate."""
    models: dict[str, QuantizedModel]
    """By model file."""
    bf16_sqnr_db: dict[str, float] = {}
    """Output -> SQNR of the float32 network in bf16 against itself, on the reference pictures: what engines add that
    compute in bf16 what is not narrower. Empty where it was not measured."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``. ``files`` maps name to sha256; ``models`` maps an engine or target to its model file."""

    schema_version: int = SCHEMA_VERSION
    slug: str
    spec: ModelSpec | None
    """None for a user's own network."""
    export: ExportOptions
    weights: WeightsOrigin
    input: InputContract
    outputs: list[OutputContract]
    graph: GraphReport
    models: dict[str, str]
    files: dict[str, str]
    tools: dict[str, str]
    golden: list[GoldenEntry] = []
    coverage: Coverage | None = None
    """How much of the activations' shapes the reference inputs show; None in artifacts of before it was measured."""
    precision: Precision = "f32"
    """Of the weights and activations in the model files."""
    derivation: Derivation | None = None
    """None in float32."""
