"""``mbexport.toml`` as it is written. Structs alone, no I/O; paths are relative to the file's folder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mbexport.quantities import Count, Share
from mbexport.spec import InputType, Pooling, Precision, Preprocess, Variant
from mbexport.spec import Layout as TensorLayout

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Budgets = Annotated[dict[str, Positive], msgspec.Meta(min_length=1)]
_SOME = msgspec.Meta(min_length=1)
Kind = Literal["bundle", "triton", "ovms", "openvino-ir", "plain"]


class GatesTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cell must hold to be shipped. Accuracy is that of the engines' default precision on labelled pictures."""

    min_top1: Share | None = None
    """As a share of 1."""
    min_top5: Share | None = None
    max_drop: Share | None = None
    """Of top-1 against float32 on the same pictures, as a share of 1."""
    max_flips: Share | None = None
    """Share of the pictures whose most probable class is another than float32's."""
    p50_ms: Positive | Budgets | None = None
    """Milliseconds on the machine that runs the pipeline; or by machine, whose folder among the profiles is the key."""
    p99_ms: Positive | Budgets | None = None
    max_size_mb: Positive | None = None
    """Of each model file, in 10^6 bytes."""
    baseline: str | None = None
    """A profile, or a machine's folder of profiles: measured rows must not be slower than there."""
    max_slower: Share | None = None
    """How much slower than the baseline a row may be, as a share of 1; 0.05 by default."""


class CellsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grid: every combination of what is given as a list. Words and defaults are those of ``mbexport build``."""

    variant: Variant | Annotated[list[Variant], _SOME] | None = None
    model: str | Annotated[list[str], _SOME] | None = None
    """Published names, instead of variant, alpha, resolution and minimalistic."""
    alpha: float | Annotated[list[float], _SOME] | None = None
    resolution: int | str | Annotated[list[int | str], _SOME] | None = None
    minimalistic: bool | Annotated[list[bool], _SOME] | None = None
    precision: Precision | Annotated[list[Precision], _SOME] = "f32"
    classes: int | None = None
    include_top: bool | None = None
    pooling: Pooling | None = None
    classifier_activation: str | None = None
    dropout_rate: float | None = None
    include_preprocessing: bool | None = None
    weights: str = "random"
    """random, imagenet, a Keras file, timm:FILE or slim:PREFIX."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    layout: TensorLayout = "nhwc"
    input_type: InputType = "float32"
    preprocess: Preprocess = "outside"
    batch: Count | Literal["dynamic"] = "dynamic"
    opset: int | None = None
    gates: GatesTable | None = None
    """Those that are given here stand in the place of the file's."""


class OutputTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is made of the cells that pass every gate."""

    kind: Kind = "bundle"
    path: str = ""
    """``{name}`` is a cell's folder, ``{network}`` the same without its precision; cells of one path share it."""
    sign: str | None = None
    """A private key; for bundles."""
    publish: str | None = None
    """Where it goes when every gate of the pipeline passed: a URL with the same placeholders."""
    force: bool = False
    """Replace another content that stands there."""
    cells: list[str] = []
    """Names of cells, with ``*`` and ``?``; all by default."""


class PipelineDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    schema_version: Literal[1] = 1
    out: str = "artifacts"
    """The folder of the artifacts, and of the reports."""
    profiles: str = "profiles"
    runtimes: list[str] = []
    """All that are here by default."""
    images: str | None = None
    """Pictures that calibrate int8 and f16 and judge accuracy: a folder a class, or a CSV."""
    labels: str | None = None
    golden: str | None = None
    bench: bool = True
    workers: Count | None = None
    threads: Count | None = None
    gates: GatesTable = GatesTable()
    cells: list[CellsTable] = []
    outputs: list[OutputTable] = []
