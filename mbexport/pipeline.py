"""The flow, readable from top to bottom: spec -> keras.Model -> ONNX -> passes -> artifact."""

from __future__ import annotations

import importlib.metadata
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import serde
from mbexport.artifact import (
    MODEL,
    OPENVINO_MODEL,
    Artifact,
    Manifest,
    Reference,
    refuse_foreign,
    write_artifact,
)
from mbexport.errors import ConversionError, MissingPackageError
from mbexport.garbage import own_garbage_collected
from mbexport.spec import MAX_NATIVE_OPSET, ExportOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import onnx
    import onnx_ir as ir

    from mbexport.artifact import GraphReport, InputContract, OutputContract, WeightsOrigin
    from mbexport.graph import PassStep
    from mbexport.spec import ModelSpec

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True)
class BuildResult:
    """An artifact just written, and where the time went."""

    artifact: Artifact
    timings_s: dict[str, float]


@dataclass(frozen=True)
class _Converted:
    """A network as tf2onnx writes it, and what Keras says of it, in the layout of the exported file."""

    origin: WeightsOrigin
    reference: Reference
    input: InputContract
    outputs: list[OutputContract]
    proto: onnx.ModelProto


@own_garbage_collected()
def build(
    spec: ModelSpec,
    *,
    export: ExportOptions | None = None,
    weights: str = "random",
    seed: int = 0,
    out: Path = Path("artifacts"),
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
    observe: Callable[[PassStep], None] | None = None,
) -> BuildResult:
    """Build, convert, simplify, check against Keras, and write ``out/<slug>/``.

    Args:
        spec: the network.
        export: the form of the file; the defaults are NHWC and a dynamic batch.
        weights: ``random`` (seeded and calibrated) or the path of a Keras weights file.
        seed: of random weights.
        out: the folder in which the artifact's folder is made.
        strict: fail where a pass had to be rolled back, instead of going on without it.
        progress: told what is being done.
        observe: told what each pass did to the graph.

    Raises:
        ConversionError: the graph cannot be made, or its outputs do not agree with Keras; with ``strict``, a pass was
            rolled back. What stood in ``out`` stays as it was.
        MissingPackageError: the ``build`` extra is not installed.
        OutputError: ``out`` cannot be written to.
        SpecError: the network would not fit into memory or into an ONNX file, or the installed ONNX Runtime does not
            know the opset.
        WeightsError: the weights file does not fit.
    """
    export = export or ExportOptions()
    clock = _Clock(progress)
    _refuse_early(spec, export, weights, out)
    with clock.step("import TensorFlow"):
        _import_tools()
    converted = _converted(spec, export, weights, seed, clock)
    with clock.step("simplify"):
        graphs, report = _simplify(converted, export, progress, observe)
    if strict:
        _refuse_rollbacks(report)
    with clock.step("check against Keras"):
        for graph in graphs.values():
            _finish(graph, spec, export, converted)
    manifest = _manifest(spec, export, converted, report, graphs)
    with clock.step("write"):
        models = {name: _serialised(graph, manifest) for name, graph in graphs.items()}
        artifact = write_artifact(out, manifest, models, converted.reference)
    return BuildResult(artifact, clock.timings_s)


def _refuse_early(spec: ModelSpec, export: ExportOptions, weights: str, out: Path) -> None:
    """Everything that can be refused before TensorFlow is imported."""
    from mbexport.memory import check_memory

    refuse_foreign(out / spec.slug)
    serde.refuse_unwritable(out)
    check_memory(spec, export.batch or 1)
    if export.opset > MAX_NATIVE_OPSET:
        from mbexport.graph.opset import check_opset

        check_opset(export.opset)
    if weights != "random":
        from mbexport.weights.keras_file import check_path

        check_path(weights)


def _converted(spec: ModelSpec, export: ExportOptions, weights: str, seed: int, clock: _Clock) -> _Converted:
    """All that needs TensorFlow. The Keras models are gone when it returns."""
    import mbexport.build as keras_side
    from mbexport.convert import INPUT, onnx_from_keras, output_names

    with clock.step("build the network"):
        built = keras_side.build_model(spec, weights, seed)
    with clock.step("run Keras for reference"):
        reference = keras_side.reference_of(built, spec, output_names(built.model), INPUT)
        reference = _in_layout(reference, export)
    with clock.step("convert"):
        proto = onnx_from_keras(built.model, opset=min(export.opset, MAX_NATIVE_OPSET))
    return _Converted(
        origin=built.origin,
        reference=reference,
        input=keras_side.input_contract(spec, export, INPUT),
        outputs=keras_side.output_contracts(spec, reference, export),
        proto=proto,
    )


class _Clock:
    def __init__(self, progress: Callable[[str], None] | None) -> None:
        self.timings_s: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(name)
        start = time.perf_counter()
        yield
        self.timings_s[name] = time.perf_counter() - start


def _import_tools() -> None:
    from mbexport.build import import_keras

    import_keras()
    for name in ("tf2onnx", "onnx_ir", "onnxscript", "h5py"):
        try:
            __import__(name)
        except ImportError as error:
            raise MissingPackageError(f"building needs {name} ({error}); pip install 'mbexport[build]'") from error


def _in_layout(reference: Reference, export: ExportOptions) -> Reference:
    """The channels-last reference in the layout of the exported file."""
    import numpy as np

    if export.layout == "nhwc":
        return reference

    def first(arrays: Any) -> Any:
        return {
            name: np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array
            for name, array in arrays.items()
        }

    return Reference(
        first(reference.inputs),
        first(reference.keras_float32),
        first(reference.keras_float64),
        others=tuple(_in_layout(other, export) for other in reference.others),
    )


def _simplify(
    converted: _Converted,
    export: ExportOptions,
    progress: Callable[[str], None] | None,
    observe: Callable[[PassStep], None] | None,
) -> tuple[dict[str, ir.Model], GraphReport]:
    """File name -> graph. The passes are guarded on two reference pictures: two, so that a mixed-up batch shows."""
    from mbexport.graph import openvino_variant, simplify
    from mbexport.graph.fuse_hard_swish import FIRST_OPSET
    from mbexport.validate import threshold_db

    reference = converted.reference
    feeds = {name: array[:2] for name, array in reference.inputs.items()}
    limit_db = min(threshold_db(output, reference) for output in converted.outputs)
    graph, report = simplify(
        converted.proto,
        feeds,
        limit_db=limit_db,
        layout=export.layout,
        opset=export.opset,
        progress=progress if observe is None else None,  # who observes the passes need not be told twice
        observe=observe,
    )
    graphs = {MODEL: graph}
    if export.opset < FIRST_OPSET:
        variant, entry = openvino_variant(graph, feeds, limit_db=limit_db)
        report = msgspec.structs.replace(report, passes=[*report.passes, entry])
        if variant is not None:
            graphs[OPENVINO_MODEL] = variant
    return graphs, report


def _refuse_rollbacks(report: GraphReport) -> None:
    """What ``strict`` asks for."""
    rolled_back = [f"{entry.name} was rolled back ({entry.skipped})" for entry in report.passes if entry.skipped]
    if rolled_back:
        raise ConversionError(f"pass {', '.join(rolled_back)}, so nothing was written; drop --strict to go on without")


def _finish(graph: ir.Model, spec: ModelSpec, export: ExportOptions, converted: _Converted) -> None:
    """Open the size where that is asked for, check the whole against Keras, and fix the batch."""
    if spec.is_dynamic:
        from mbexport.graph.free_size import free_size

        free_size(graph, export.layout)
    _check_whole(graph, converted)
    if export.batch is not None:
        _fix_batch(graph, export.batch)


def _check_whole(graph: ir.Model, converted: _Converted) -> None:
    """The finished graph against Keras's float64 at each size, to the limit that ``validate`` holds runtimes to."""
    from mbexport.graph.guard import run_model
    from mbexport.validate import compare_output, size_label, threshold_db

    for reference in converted.reference.each:
        answers = run_model(graph, reference.inputs)
        for output in converted.outputs:
            truth = reference.keras_float64[output.name]
            comparison = compare_output(output, truth, answers, threshold_db(output, reference))
            if not comparison:
                where = f"{output.name}{size_label(converted.input, reference)}"
                raise ConversionError(f"the graph does not agree with Keras on {where}: {comparison.reason}")


def _fix_batch(graph: ir.Model, batch: int) -> None:
    """Make the dynamic batch static, wherever a shape names it."""
    import onnx_ir as ir

    from mbexport.convert import BATCH

    made = [value for node in graph.graph for value in node.outputs]
    for value in (*graph.graph.inputs, *made):
        if value.shape is not None:
            value.shape = ir.Shape([batch if dim == BATCH else dim for dim in value.shape])


def _manifest(
    spec: ModelSpec, export: ExportOptions, converted: _Converted, report: GraphReport, files: Collection[str]
) -> Manifest:
    return Manifest(
        slug=spec.slug,
        spec=spec,
        export=export,
        weights=converted.origin,
        input=converted.input,
        outputs=converted.outputs,
        graph=report,
        models={"ort": MODEL, "openvino": OPENVINO_MODEL if OPENVINO_MODEL in files else MODEL},
        files={},
        tools={name: importlib.metadata.version(name) for name in ("mbexport", *TOOLS)},
    )


def _serialised(graph: ir.Model, manifest: Manifest) -> bytes:
    """model.onnx with spec, contract and versions in its metadata; no dates, so that bytes can be compared."""
    import onnx_ir as ir

    from mbexport.graph.opset import ir_version

    graph.ir_version = ir_version(manifest.export.opset)
    graph.producer_name, graph.producer_version = "mbexport", manifest.tools["mbexport"]
    graph.graph.name, graph.doc_string, graph.graph.doc_string = manifest.slug, None, None
    unnamed = msgspec.structs.replace(manifest.weights, file=None)  # the same weights in another file: the same bytes
    stated = {key: getattr(manifest, key) for key in ("spec", "export", "input", "outputs", "tools")}
    for key, value in {**stated, "weights": unnamed}.items():
        graph.metadata_props[f"mbexport.{key}"] = msgspec.json.encode(value, order="deterministic").decode()
    data: bytes = ir.to_proto(graph).SerializeToString(deterministic=True)
    return data
