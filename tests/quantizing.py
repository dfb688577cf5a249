"""Small networks to quantise, and what they answer once rounded, computed node by node without the walk."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mbexport.accuracy.graph_float64 import evaluate, in_float64
from mbexport.artifact import write_artifact
from mbexport.labels import Label
from mbexport.manifest import GraphReport, InputContract, Manifest, OutputContract, OutputKind, WeightsOrigin
from mbexport.quantize.network import Network
from mbexport.quantize.node_runs import run_node
from mbexport.quantize.placement import Islands, place
from mbexport.quantize.verdict import Timing
from mbexport.quantize.walk import settle
from mbexport.reference import Reference
from mbexport.runtimes.ort_calls import run_unoptimized
from mbexport.spec import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.quantize.placement import Engine
    from mbexport.quantize.recipe import Recipe
    from mbexport.quantize.walk import Settled

    Floats = NDArray[np.float32]

SIDE_PX, CLASSES = 12, 5
CLIPS = {"low": 0.0, "six": 6.0, "half": 0.5, "minus": -0.4}
"""Bounds that a Clip may read."""


class Writer:
    """Nodes and constants one by one; each node is named as its output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {name: np.float32(value) for name, value in CLIPS.items()}
        self._rng = np.random.default_rng(seed)

    def add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=output, **attributes))
        return output

    def conv(self, read: str, output: str, shape: tuple[int, int, int], gain: float = 1.5, **attributes: Any) -> str:
        """Of (outputs, inputs of a group, side); channels differ in size, as trained ones do."""
        outputs, inputs, side = shape
        sizes = gain * np.geomspace(0.5, 2, outputs)[self._rng.permutation(outputs)] / (inputs * side**2) ** 0.5
        kernel = self._rng.normal(size=(outputs, inputs, side, side)) * sizes[:, None, None, None]
        self.constants[f"{output}/kernel"] = kernel.astype(np.float32)
        self.constants[f"{output}/bias"] = self._rng.normal(0.1, 0.3, outputs).astype(np.float32)
        pads = [side // 2] * 4
        return self.add("Conv", [read, f"{output}/kernel", f"{output}/bias"], output, pads=pads, **attributes)

    def active(self, read: str, kind: str, output: str) -> str:
        """``kind`` is an operator, or Clip and its bounds."""
        op_type, *bounds = kind.split()
        return self.add(op_type, [read, *("" if bound == "-" else bound for bound in bounds)], output)

    def dense(self, read: str, output: str, inputs: int, outputs: int) -> str:
        self.constants[f"{output}/matrix"] = self._rng.normal(size=(inputs, outputs)).astype(np.float32)
        self.constants[f"{output}/bias"] = self._rng.normal(size=outputs).astype(np.float32)
        return self.add("Gemm", [read, f"{output}/matrix", f"{output}/bias"], output)

    def model(self, outputs: Mapping[str, int], opset: int = 17) -> onnx.ModelProto:
        """From the float32 input ``x``; ``outputs`` are names and ranks."""
        read = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE_PX, SIDE_PX])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()],
            [
                numpy_helper.from_array(np.asarray(array), name)
                for name, array in self.constants.items()
                if name in read
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def block(write: Writer, read: str, kind: str, name: str, *, gate: bool = True) -> str:
    """Expansion, depthwise convolution, squeeze-excite, projection, addition: 8 channels in and out."""
    raised = write.active(write.conv(read, f"{name}/expand", (16, 8, 1)), kind, f"{name}/raised")
    depthwise = write.conv(raised, f"{name}/depthwise", (16, 1, 3), group=16)
    inner = write.active(depthwise, kind, f"{name}/inner")
    if gate:
        pooled = write.add("GlobalAveragePool", [inner], f"{name}/squeeze")
        reduced = write.active(write.conv(pooled, f"{name}/reduce", (4, 16, 1)), "Relu", f"{name}/reduced")
        share = write.active(write.conv(reduced, f"{name}/excite", (16, 4, 1)), "HardSigmoid", f"{name}/gate")
        inner = write.add("Mul", [inner, share], f"{name}/gated")
    return write.add("Add", [write.conv(inner, f"{name}/project", (8, 16, 1)), read], f"{name}/sum")


def mobile(kind: str = "HardSwish", *, gate: bool = True, top: str = "Gemm") -> onnx.ModelProto:
    """A MobileNet of two blocks: ``kind`` is its activation, ``top`` how the classifier is written, or ``none``."""
    write = Writer()
    stem = write.active(write.conv("x", "stem", (8, 3, 3), strides=[2, 2]), kind, "stem/active")
    last = block(write, block(write, stem, kind, "one", gate=gate), "Relu", "two", gate=False)
    if top == "none":
        return write.model({last: 4})
    pooled = write.add("GlobalAveragePool", [last], "pooled")
    if top == "Conv":  # as V3 has it
        wide = write.active(write.conv(pooled, "wide", (12, 8, 1)), kind, "wide/active")
        write.constants["flat_shape"] = np.array([-1, 12])
        logits = write.dense(write.add("Reshape", [wide, "flat_shape"], "flat"), "logits", 12, CLASSES)
    elif top == "MatMul":
        logits = write.dense(write.add("Flatten", [pooled], "flat"), "logits", 8, CLASSES)
        gemm = write.nodes.pop()
        product = write.add("MatMul", gemm.input[:2], "logits/product")
        logits = write.add("Add", [product, gemm.input[2]], "logits")
    else:
        logits = write.dense(write.add("Flatten", [pooled], "flat"), "logits", 8, CLASSES)
    write.add("Softmax", [logits], "probabilities")
    return write.model({"probabilities": 2})


def pictures(count: int, seed: int = 1) -> Floats:
    """Smooth ones, whose neighbouring places are alike, (count, 3, side, side)."""
    rough = np.random.default_rng(seed).normal(size=(count, 3, SIDE_PX + 2, SIDE_PX + 2))
    smooth = sum(rough[:, :, i : i + SIDE_PX, j : j + SIDE_PX] for i in range(3) for j in range(3))
    return (np.asarray(smooth) / 2).astype(np.float32)


def settled(
    model: onnx.ModelProto,
    engine: Engine,
    *,
    islands: Islands = Islands(),  # noqa: B008, which is frozen
    levels: int = 127,
    recipe: Recipe | None = None,
) -> tuple[Network, Settled]:
    """On 40 pictures in batches of 8."""
    network, shown = Network(model), pictures(40)
    batches = [shown[at : at + 8] for at in range(0, 40, 8)]
    numbers = settle(network, place(network, engine, islands), batches, levels=levels, recipe=recipe)
    return numbers.network, numbers


def simulated(network: Network, numbers: Settled, x: Floats) -> dict[str, Floats]:
    """Every tensor: each node in float32 on what is rounded before it, with the weights that 8-bit ones stand for."""

    def seen(name: str, array: Floats) -> Floats:
        return numbers.grids[name].rounded(array) if name in numbers.grids else array

    found = {name: seen(name, x) for name in network.inputs}
    for node in network.nodes:
        constants = {name: network.constants[name] for name in node.input if name in network.constants}
        written = onnx.NodeProto()
        written.CopyFrom(node)
        fitted = numbers.weights | numbers.floats
        if node.output[0] in fitted:
            product, weights = network.products[node.output[0]], fitted[node.output[0]]
            del written.input[:]
            written.input.extend([product.input, "kernel", "bias"])
            constants = {"kernel": product.stored(weights.as_float), "bias": weights.bias}
        read = {name: [found[name]] for name in written.input if name in found}
        ((result,),) = run_node(written, read, constants, network.model.opset_import)
        found[node.output[0]] = seen(node.output[0], result)
    return found


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


LABELS = [Label(id=f"k{index}", name=f"kind {index}") for index in range(CLASSES)]


def mobile_artifact(
    out: Path,
    model: onnx.ModelProto | None = None,
    *,
    batch: int | None = None,
    weights: Literal["random", "keras-file"] = "keras-file",
    labels: list[Label] | None = LABELS,
) -> Artifact:
    """``model``, of pictures of -1..1, as an artifact with weights that are called trained."""
    model = model or mobile("Relu", top="MatMul")
    probes = np.clip(pictures(4), -1, 1)
    taken = InputContract(
        name="x",
        shape=[batch, 3, SIDE_PX, SIDE_PX],
        layout="nchw",
        type="float32",
        range=(-1.0, 1.0),
        mean=127.5,
        scale=127.5,
        resize="shorter side to 12, bilinear",
        resize_px=SIDE_PX,
        crop="centre 12x12",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, on weights that a test makes NaN
        truth = evaluate(in_float64(model), {"x": probes})
    if batch is not None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    kinds: dict[str, OutputKind] = {"probabilities": "probabilities", "logits": "logits"}
    outputs = [
        OutputContract(name=name, shape=[batch, *array.shape[1:]], kind=kinds.get(name, "features"))
        for name, array in truth.items()
    ]
    manifest = Manifest(
        slug="mobile",
        spec=None,
        export=ExportOptions(batch=batch, layout="nchw"),
        weights=WeightsOrigin(kind=weights),
        input=taken,
        outputs=outputs,
        graph=GraphReport(nodes=5, ops={}, nodes_before=5, ops_before={}, passes=[]),
        models={"ort": "model.onnx", "openvino": "model.onnx"},
        files={},
        tools={},
    )
    single = {name: array.astype(np.float32) for name, array in truth.items()}
    data = {"model.onnx": model.SerializeToString()}
    return write_artifact(out, manifest, data, Reference({"x": probes}, single, truth), labels=labels)


def picture_files(folder: Path, count: int, artifact: Artifact | None = None) -> Path:
    """PNG files of smooth noise: in a folder for each class as the artifact's model answers, else all in one."""
    shades = np.rint(np.clip(pictures(count, seed=3), -1, 1) * 127.5 + 127.5).astype(np.uint8)
    kinds = [""] * count
    if artifact is not None:
        fed = {"x": shades.astype(np.float32) / np.float32(127.5) - 1}
        (answer,) = run_unoptimized(onnx.load(artifact.model_path("ort:cpu")), fed).values()
        kinds = [f"k{index}" for index in answer.argmax(axis=-1)]
    for number, (shade, kind) in enumerate(zip(shades, kinds, strict=True)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(shade.transpose(1, 2, 0)).save(folder / kind / f"{number:03d}.png")
    return folder


def clocked_as(monkeypatch: pytest.MonkeyPatch, speedup: float) -> None:
    """Let every narrower file be so many times as fast as float32, without measuring."""

    def timings(_source: object, _narrow: object, targets: Sequence[str], *_rest: object) -> dict[Any, Timing]:
        times = {"f32": (2e-3, "f32"), "narrow": (2e-3 / speedup, "int8")}
        return {
            (target, row): Timing(p50s_s=[time_s] * 5, precision=precision, memory_bytes=1_000_000)
            for target in targets
            for row, (time_s, precision) in times.items()
        }

    monkeypatch.setattr("mbexport.quantize.run.timings", timings)
