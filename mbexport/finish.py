"""The last steps of an export: the whole against Keras, open or fixed sizes, and the file's bytes."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import onnx_ir as ir

from mbexport.accuracy.coverage import knee_coverage
from mbexport.accuracy.probes import size_label
from mbexport.accuracy.trace import trace_of
from mbexport.artifact import MODEL, OPENVINO_MODEL
from mbexport.convert import BATCH
from mbexport.errors import ConversionError
from mbexport.golden import entries
from mbexport.graph.free_size import free_size
from mbexport.graph.guard import run_model
from mbexport.graph.opset import ir_version
from mbexport.graph.tools import light_proto
from mbexport.manifest import TOOLS, GraphReport, Manifest
from mbexport.outputs import compare_output, threshold_db
from mbexport.pictures import in_fours, joined

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mbexport.accuracy.trace import Trace
    from mbexport.labels import Label
    from mbexport.manifest import Coverage, InputContract, OutputContract
    from mbexport.reference import Golden, Reference
    from mbexport.spec import ExportOptions
    from mbexport.subject import About


@dataclass(frozen=True)
class Seen:
    """What the finished graph's tensors held on the first four pictures: samples, and which knees they crossed."""

    trace: Trace
    coverage: Coverage


def finish(
    graph: ir.Model, contract: InputContract, outputs: Sequence[OutputContract], reference: Reference, batch: int | None
) -> Seen:
    """Open the size where the contract does, check the whole against Keras, and fix the batch; in place.

    Returns:
        What was seen of the graph's tensors meanwhile, on the first four pictures of the first size.

    Raises:
        ConversionError: an output does not agree with Keras's float64, to the limit that ``validate`` holds runtimes
            to, at some size.
    """
    if contract.is_dynamic:
        free_size(graph, contract.layout)
    seen = _check_whole(graph, contract, outputs, reference)
    if batch is not None:
        _fix_batch(graph, batch)
    return seen


def _check_whole(
    graph: ir.Model, contract: InputContract, outputs: Sequence[OutputContract], reference: Reference
) -> Seen:
    seen = None
    names = [output.name for output in outputs]
    for at_size in reference.each:
        parts = []
        for inputs in in_fours(at_size.inputs):
            answers = run_model(graph, inputs, expose=seen is None)
            if seen is None:
                proto, _ = light_proto(graph)
                seen = Seen(trace_of(answers), knee_coverage(proto.graph, {**inputs, **answers}))
            parts.append({name: answers[name] for name in names if name in answers})
        whole = joined(parts)
        for output in outputs:
            truth = at_size.keras_float64[output.name]
            comparison = compare_output(output, truth, whole, threshold_db(output, at_size))
            if not comparison:
                where = f"{output.name}{size_label(contract, at_size)}"
                raise ConversionError(f"the graph does not agree with Keras on {where}: {comparison.reason}")
    assert seen is not None, "a reference has at least one size"
    return seen


def _fix_batch(graph: ir.Model, batch: int) -> None:
    """Make the dynamic batch static, wherever a shape names it."""
    made = [value for node in graph.graph for value in node.outputs]
    for value in (*graph.graph.inputs, *made):
        if value.shape is not None:
            value.shape = ir.Shape([batch if dim == BATCH else dim for dim in value.shape])


def manifest_of(
    about: About,
    export: ExportOptions,
    *,
    contract: InputContract,
    outputs: list[OutputContract],
    report: GraphReport,
    coverage: Coverage,
    files: Collection[str],
    golden: Sequence[Golden],
) -> Manifest:
    """What the artifact says of itself. ``files`` are the names of its model files."""
    return Manifest(
        slug=about.slug,
        spec=about.spec,
        export=export,
        weights=about.origin,
        input=contract,
        outputs=outputs,
        graph=report,
        models={"ort": MODEL, "openvino": OPENVINO_MODEL if OPENVINO_MODEL in files else MODEL},
        files={},
        tools={name: importlib.metadata.version(name) for name in TOOLS},
        golden=entries(golden, outputs, about.labels),
        coverage=coverage,
    )


def serialised(graph: ir.Model, manifest: Manifest, labels: list[Label] | None) -> bytes:
    """model.onnx with spec, contract and versions in its metadata; no dates, so that bytes can be compared."""
    graph.ir_version = ir_version(manifest.export.opset)
    graph.producer_name, graph.producer_version = "mbexport", manifest.tools["mbexport"]
    graph.graph.name, graph.doc_string, graph.graph.doc_string = manifest.slug, None, None
    unnamed = msgspec.structs.replace(manifest.weights, file=None)  # the same weights in another file: the same bytes
    stated = {key: getattr(manifest, key) for key in ("spec", "export", "input", "outputs", "tools")}
    for key, value in {**stated, "weights": unnamed, "labels": labels}.items():
        graph.metadata_props[f"mbexport.{key}"] = msgspec.json.encode(value, order="deterministic").decode()
    data: bytes = ir.to_proto(graph).SerializeToString(deterministic=True)
    return data
