"""Whole files in every form: each opset, batch and layout, on both runtimes, without a word from ONNX Runtime."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import onnx
import pytest

from mbexport import build as keras_side
from mbexport.artifact import read_artifact
from mbexport.graph.opset import newest_opset
from mbexport.pipeline import build
from mbexport.runtimes import resolve_targets
from mbexport.spec import ExportOptions, ModelSpec, Variant
from mbexport.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mbexport.artifact import Artifact

    Built = Callable[[Variant, ExportOptions], Artifact]

RUNTIMES = ["ort:cpu", "openvino:cpu"]
NEWEST = newest_opset()
FORMS: list[tuple[Variant, ExportOptions]] = [
    *(("small", ExportOptions(opset=opset)) for opset in (13, 14, 17, 18, 19, NEWEST)),
    *(("large", ExportOptions(opset=opset, layout="nchw", batch=2)) for opset in (13, NEWEST)),
    *(("v2", ExportOptions(opset=opset, batch=1)) for opset in (13, NEWEST)),
    ("small", ExportOptions(layout="nchw", batch=3)),
    ("large", ExportOptions()),
    ("v2", ExportOptions(layout="nchw")),
]
MORE: list[tuple[Variant, ExportOptions]] = [
    *(("small", ExportOptions(opset=opset)) for opset in range(13, NEWEST + 1)),
    *(("large", ExportOptions(opset=opset)) for opset in range(13, NEWEST + 1)),
    *(("v2", ExportOptions(opset=opset, layout="nchw")) for opset in range(13, NEWEST + 1)),
]
CANONICAL = {
    *("Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "MatMul", "Mul"),
    *("ReduceMean", "Relu", "Reshape", "Softmax", "Transpose"),
}


def name(value: object) -> str:
    if not isinstance(value, ExportOptions):
        return str(value)
    return f"{value.opset}-{value.layout}-{value.batch or 'dynamic'}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Artifacts of small networks, each made once; the Keras models of one network serve all its forms."""

    @functools.cache
    def make(variant: Variant, export: ExportOptions) -> Artifact:
        spec = ModelSpec(variant=variant, alpha=0.35, height=32, width=32, classes=10)
        return build(spec, export=export, out=tmp_path_factory.mktemp("artifacts"), strict=True).artifact

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_side, "build_model", functools.cache(keras_side.build_model))
        yield make


LOAD = """
import sys
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def said_while_loading(model: Path) -> str:
    """By ONNX Runtime at its default severity, in a process of its own: it writes to the file descriptor."""
    done = subprocess.run([sys.executable, "-c", LOAD, str(model)], capture_output=True, text=True, check=True)
    return done.stderr


@pytest.mark.parametrize(
    ("variant", "export"),
    [*FORMS, *(pytest.param(*form, marks=pytest.mark.slow) for form in MORE if form not in FORMS)],
    ids=name,
)
def test_file(variant: Variant, export: ExportOptions, built: Built) -> None:
    artifact = built(variant, export)
    model = onnx.load(artifact.path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.opset)]
    ops = Counter(node.op_type for node in model.graph.node)
    assert set(ops) <= CANONICAL
    assert ops["Transpose"] == (1 if export.layout == "nhwc" else 0)
    assert (ops["HardSwish"] > 0) == (variant != "v2" and export.opset >= 14)
    read = {value for node in model.graph.node for value in node.input}
    assert [tensor.name for tensor in model.graph.initializer if tensor.name not in read] == []
    assert said_while_loading(artifact.path / "model.onnx") == ""
    report = validate(read_artifact(artifact.path), resolve_targets(RUNTIMES))
    assert report.passed, report.rows
    assert {row.runtime for row in report.rows} == set(RUNTIMES)


def test_a_dead_initializer_would_be_heard(built: Built, tmp_path: Path) -> None:
    model = onnx.load(built("v2", ExportOptions(layout="nchw")).path / "model.onnx")
    model.graph.initializer.append(onnx.helper.make_tensor("dead", onnx.TensorProto.FLOAT, [1], [0.0]))
    onnx.save(model, tmp_path / "dead.onnx")
    assert "dead" in said_while_loading(tmp_path / "dead.onnx")


@pytest.mark.parametrize(("low", "high"), [(14, 18), (18, 19), (19, NEWEST)])
def test_newer_opsets_hold_the_same_network(low: int, high: int, built: Built) -> None:
    """Names, order, weights, metadata but for what speaks of the export."""
    one, other = (onnx.load(built("small", ExportOptions(opset=opset)).path / "model.onnx") for opset in (low, high))
    assert [node.name for node in one.graph.node] == [node.name for node in other.graph.node]
    weights = [
        {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer if len(tensor.dims) == 4}
        for model in (one, other)
    ]
    assert weights[0] == weights[1]
    assert list(weights[0]) == list(weights[1])
    metadata = [{entry.key: entry.value for entry in model.metadata_props} for model in (one, other)]
    assert metadata[0].keys() == metadata[1].keys()
    assert {key for key in metadata[0] if metadata[0][key] != metadata[1][key]} == {"mbexport.export"}
