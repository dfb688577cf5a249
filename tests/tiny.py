"""A network of a few nodes as an ONNX graph and, written a second time in NumPy, as its own ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mbexport.artifact import Artifact, write_artifact
from mbexport.manifest import GraphReport, InputContract, Manifest, OutputContract, OutputKind, WeightsOrigin
from mbexport.reference import Reference
from mbexport.spec import ExportOptions, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import DTypeLike, NDArray

SIDE_PX, CHANNELS, CLASSES = 8, 8, 5


def _weights() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32),
        "matrix": rng.normal(size=(CHANNELS, CLASSES)).astype(np.float32),
        "bias": rng.normal(size=CLASSES).astype(np.float32),
    }


@dataclass
class TinyNetwork:
    """NHWC picture -> 3x3 convolution -> hard-swish -> mean -> matrix -> softmax.

    ``outputs`` names what comes out; each output's tensor is named as its kind.
    """

    outputs: Sequence[OutputKind] = ("probabilities",)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=_weights)

    def onnx_model(self, batch: int | None = None) -> onnx.ModelProto:
        """The graph, with a dynamic batch where ``batch`` is None."""
        nodes = [
            helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "kernel"], ["convolved"], pads=[1, 1, 1, 1]),
            helper.make_node("HardSwish", ["convolved"], ["active"]),
            helper.make_node("Transpose", ["active"], ["features"], perm=[0, 2, 3, 1]),
            helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ]
        picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch or "batch", SIDE_PX, SIDE_PX, 3])
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch or "batch", *self.shape(name)])
            for name in self.outputs
        ]
        initializers = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(nodes, "tiny", [picture], results, initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def answers(self, pictures: NDArray[Any], dtype: DTypeLike) -> dict[str, NDArray[Any]]:
        """The outputs in NumPy, every step in ``dtype``."""
        kernel, matrix, bias = (self.weights[name].astype(dtype) for name in ("kernel", "matrix", "bias"))
        padded = np.pad(pictures.astype(dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        convolved = np.einsum("nhwcij,ocij->nhwo", windows, kernel)
        active = convolved * np.clip(convolved / 6 + np.asarray(0.5, dtype), 0, 1)
        logits = active.mean(axis=(1, 2)) @ matrix + bias
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        everything = {
            "features": active,
            "logits": logits,
            "probabilities": exponents / exponents.sum(axis=-1, keepdims=True),
        }
        return {name: everything[name] for name in self.outputs}

    @staticmethod
    def shape(kind: OutputKind) -> list[int]:
        """An output's shape without the batch."""
        return [SIDE_PX, SIDE_PX, CHANNELS] if kind == "features" else [CLASSES]


def pictures(count: int) -> NDArray[np.float32]:
    """Seeded pictures (count, 8, 8, 3), no two alike, about -1..1."""
    return np.random.default_rng(1).normal(size=(count, SIDE_PX, SIDE_PX, 3)).astype(np.float32)


def tiny_artifact(
    out: Path,
    network: TinyNetwork | None = None,
    *,
    model: bytes | None = None,
    batch: int | None = None,
    count: int = 3,
) -> Artifact:
    """An artifact of ``network`` under ``out``. Its reference is right whatever ``model`` holds."""
    network = network or TinyNetwork()
    probes = pictures(count)
    reference = Reference({"input": probes}, network.answers(probes, np.float32), network.answers(probes, np.float64))
    manifest = Manifest(
        slug="tiny",
        spec=ModelSpec(variant="small", height=32, width=32, classes=CLASSES),
        export=ExportOptions(batch=batch),
        weights=WeightsOrigin(kind="random", seed=0),
        input=InputContract(
            name="input",
            shape=[batch, SIDE_PX, SIDE_PX, 3],
            layout="nhwc",
            type="float32",
            range=(-1.0, 1.0),
            mean=127.5,
            scale=127.5,
            resize="none",
            crop="none",
        ),
        outputs=[OutputContract(name=kind, shape=[batch, *network.shape(kind)], kind=kind) for kind in network.outputs],
        graph=GraphReport(nodes=8, ops={}, nodes_before=8, ops_before={}, passes=[]),
        models={"ort": "model.onnx", "openvino": "model.onnx", "double": "model.onnx"},
        files={},
        tools={},
    )
    data = model or network.onnx_model(batch).SerializeToString()
    return write_artifact(out, manifest, {"model.onnx": data}, reference)
