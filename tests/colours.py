"""A network that tells colours apart, and pictures of one colour: what is right is known without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mbexport.artifact import Artifact, read_reference, write_artifact
from mbexport.labels import Label
from mbexport.manifest import (
    Derivation,
    GraphReport,
    InputContract,
    Manifest,
    OutputContract,
    OutputKind,
    QuantizedModel,
    WeightsOrigin,
)
from mbexport.reference import Reference
from mbexport.spec import ExportOptions, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SIDE_PX = 32
COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "black": (20, 20, 20)}
LABELS = [
    Label(id="c0", name="fire red"),
    Label(id="c1", name="green"),
    Label(id="c2", name="blue"),
    Label(id="c3", name="black"),
]
_MATRIX = np.array([[4, -4, -4, -2], [-4, 4, -4, -2], [-4, -4, 4, -2]], np.float32)
"""(channels, classes): each colour answers to its own channel, black to none."""


def contract(**changes: Any) -> InputContract:
    """-1..1, 32x32 pixels, channels last."""
    basis = InputContract(
        name="input",
        shape=[None, SIDE_PX, SIDE_PX, 3],
        layout="nhwc",
        type="float32",
        range=(-1.0, 1.0),
        mean=127.5,
        scale=127.5,
        resize="shorter side to 37, bilinear",
        resize_px=37,
        crop="centre 32x32",
    )
    return msgspec.structs.replace(basis, **changes)


def expected_logits(colour: tuple[int, int, int]) -> NDArray[np.float64]:
    return (np.array(colour) / 127.5 - 1) @ _MATRIX.astype(np.float64)


def colour_model(taken: InputContract, outputs: Sequence[OutputKind], swap: tuple[int, int] | None = None) -> bytes:
    """Mean over the picture, then a matrix. ``swap`` exchanges two classes, as a wrong runtime might."""
    matrix = _MATRIX / np.float32(1 if taken.type == "float32" else 127.5)
    bias = np.zeros(4, np.float32) if taken.type == "float32" else -_MATRIX.sum(axis=0)
    if taken.colour_order == "BGR":
        matrix = matrix[::-1]
    if swap is not None:
        order = list(range(4))
        order[swap[0]], order[swap[1]] = swap[1], swap[0]
        matrix, bias = matrix[:, order], bias[order]
    axes = [1, 2] if taken.layout == "nhwc" else [2, 3]
    nodes = [
        helper.make_node("Cast", ["input"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Gemm", ["mean", "matrix", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("Identity", ["mean"], ["features"]),
    ]
    kind = TensorProto.FLOAT if taken.type == "float32" else TensorProto.UINT8
    batch = taken.shape[0] or "batch"
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", kind, [batch, *taken.shape[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, _width(name)]) for name in outputs],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in (("matrix", matrix), ("bias", bias))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def colour_artifact(
    out: Path,
    *,
    outputs: Sequence[OutputKind] = ("logits",),
    labels: list[Label] | None = LABELS,
    openvino_swap: tuple[int, int] | None = None,
    spec: ModelSpec | None = None,
    weights: Literal["random", "keras-file"] = "random",
    model: bytes | None = None,
    **changes: Any,
) -> Artifact:
    """An artifact under ``out``, each output's tensor named as its kind. ``changes`` are those of :func:`contract`."""
    taken = contract(**changes)
    batch = taken.shape[0]
    arrays: dict[str, NDArray[np.float32]] = {name: np.zeros((1, _width(name)), np.float32) for name in outputs}
    manifest = Manifest(
        slug="colours",
        spec=spec,
        export=ExportOptions(batch=batch, layout=taken.layout),
        weights=WeightsOrigin(kind=weights),
        input=taken,
        outputs=[OutputContract(name=kind, shape=[batch, _width(kind)], kind=kind) for kind in outputs],
        graph=GraphReport(nodes=5, ops={}, nodes_before=5, ops_before={}, passes=[]),
        models={"ort": "model.onnx", "openvino": "model_openvino.onnx"},
        files={},
        tools={},
    )
    right = model or colour_model(taken, outputs)
    models = {"model.onnx": right, "model_openvino.onnx": right}
    if openvino_swap is not None:
        models["model_openvino.onnx"] = colour_model(taken, outputs, openvino_swap)
    doubles: dict[str, NDArray[np.float64]] = {name: array.astype(np.float64) for name, array in arrays.items()}
    probes = np.zeros((1, *(side or 1 for side in taken.shape[1:])), np.float32)
    return write_artifact(out, manifest, models, Reference({"input": probes}, arrays, doubles), labels=labels)


def paint(path: Path, colour: str, size: tuple[int, int] = (50, 40)) -> Path:
    """A picture of one colour, (width, height) in pixels, in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(path)
    return path


def truncated(path: Path) -> Path:
    """A JPEG of noise that ends in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _width(name: str) -> int:
    return 3 if name == "features" else 4


def int8_beside(source: Artifact, swap: tuple[int, int] | None = None, **changes: Any) -> Artifact:
    """The int8 artifact of a colour artifact, in the folder beside it. ``changes`` are those of the manifest."""
    model = onnx.load_from_string(colour_model(source.manifest.input, ["logits"], swap))
    (gemm,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    gemm.input[0] = "rounded"
    steps = [("QuantizeLinear", "mean", "bytes"), ("DequantizeLinear", "bytes", "rounded")]
    at = list(model.graph.node).index(gemm)
    for place, (kind, taken, made) in enumerate(steps):
        model.graph.node.insert(at + place, helper.make_node(kind, [taken, "scale", "zero"], [made]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 / 127, np.float32), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "zero"))
    derivation = Derivation(
        source_sha256=source.sha256,
        method="test",
        models={"model.onnx": QuantizedModel(islands=[], sqnr_db={"logits": 30.0})},
    )
    manifest = msgspec.structs.replace(
        source.manifest,
        slug=f"{source.manifest.slug}_int8",
        models={"ort": "model.onnx", "openvino": "model.onnx"},
        precision="int8",
        derivation=derivation,
    )
    manifest = msgspec.structs.replace(manifest, **changes)
    data = {"model.onnx": model.SerializeToString()}
    return write_artifact(source.path.parent, manifest, data, read_reference(source), labels=LABELS)
