"""The flow, readable from top to bottom: spec -> keras.Model -> ONNX -> passes -> artifact."""

from __future__ import annotations

import gc
import importlib.metadata
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport import serde
from mbexport.artifact import MODEL, Artifact, Manifest, Reference, refuse_foreign, write_artifact
from mbexport.errors import ConversionError, MissingPackageError
from mbexport.spec import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    import onnx_ir as ir

    from mbexport.artifact import GraphReport, InputContract, OutputContract, WeightsOrigin
    from mbexport.spec import ModelSpec

IR_VERSION = 8
"""The ONNX file format of opset 15 to 18; every runtime release of the last years reads it."""
TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True)
class BuildResult:
    """An artifact just written, and where the time went."""

    artifact: Artifact
    timings_s: dict[str, float]


def build(
    spec: ModelSpec,
    *,
    export: ExportOptions | None = None,
    weights: str = "random",
    seed: int = 0,
    out: Path = Path("artifacts"),
    progress: Callable[[str], None] | None = None,
) -> BuildResult:
    """Build, convert, simplify, check against Keras, and write ``out/<slug>/``.

    Args:
        spec: the network.
        export: the form of the file; the defaults are NHWC and a dynamic batch.
        weights: ``random`` (seeded and calibrated) or the path of a Keras weights file.
        seed: of random weights.
        out: the folder in which the artifact's folder is made.
        progress: told what is being done.

    Raises:
        ConversionError: the graph cannot be made, or its outputs do not agree with Keras.
        MissingPackageError: the ``build`` extra is not installed.
        OutputError: ``out`` cannot be written to.
        SpecError: the network would not fit into memory or into an ONNX file.
        WeightsError: the weights file does not fit.
    """
    from mbexport.memory import check_memory

    export = export or ExportOptions()
    clock = _Clock(progress)
    gc.collect()  # Keras models are cycles: an earlier build's gigabytes would otherwise stay for a while
    refuse_foreign(out / spec.slug)
    serde.refuse_unwritable(out)
    check_memory(spec, export.batch or 1)
    if weights != "random":
        from mbexport.weights.keras_file import check_path

        check_path(weights)
    with clock.step("import TensorFlow"):
        _import_tools()
    import mbexport.build as keras_side
    from mbexport.convert import INPUT, onnx_from_keras, output_names

    with clock.step("build the network"):
        built = keras_side.build_model(spec, weights, seed)
    with clock.step("run Keras for reference"):
        reference = keras_side.reference_of(built, spec, output_names(built.float32), INPUT)
        reference = _in_layout(reference, export)
    with clock.step("convert"):
        proto = onnx_from_keras(built.float32, opset=export.opset)
    outputs = keras_side.output_contracts(spec, reference, export)
    with clock.step("simplify"):
        graph, report = _simplify(proto, reference, outputs, export, progress)
    with clock.step("check against Keras"):
        _check_whole(graph, reference, outputs)
        if export.batch is not None:
            _fix_batch(graph, export.batch)
    contract = keras_side.input_contract(spec, export, INPUT)
    manifest = _manifest(spec, export, built.origin, contract, outputs, report)
    with clock.step("write"):
        artifact = write_artifact(out, manifest, _serialised(graph, manifest), reference)
    return BuildResult(artifact, clock.timings_s)


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

    return Reference(first(reference.inputs), first(reference.keras_float32), first(reference.keras_float64))


def _simplify(
    proto: onnx.ModelProto,
    reference: Reference,
    outputs: list[OutputContract],
    export: ExportOptions,
    progress: Callable[[str], None] | None,
) -> tuple[ir.Model, GraphReport]:
    """The passes, guarded on two reference pictures: two, so that a mixed-up batch shows."""
    from mbexport.graph import simplify
    from mbexport.validate import threshold_db

    return simplify(
        proto,
        {name: array[:2] for name, array in reference.inputs.items()},
        limit_db=min(threshold_db(output, reference) for output in outputs),
        layout=export.layout,
        progress=progress,
    )


def _check_whole(graph: ir.Model, reference: Reference, outputs: list[OutputContract]) -> None:
    """The finished graph against Keras's float64, to the limit that ``validate`` holds every runtime to."""
    from mbexport.graph.guard import run_model
    from mbexport.validate import compare_output, threshold_db

    answers = run_model(graph, reference.inputs)
    for output in outputs:
        truth = reference.keras_float64[output.name]
        comparison = compare_output(output, truth, answers, threshold_db(output, reference))
        if not comparison:
            raise ConversionError(f"the graph does not agree with Keras on {output.name}: {comparison.reason}")


def _fix_batch(graph: ir.Model, batch: int) -> None:
    """Make the dynamic batch static, wherever a shape names it."""
    import onnx_ir as ir

    from mbexport.convert import BATCH

    made = [value for node in graph.graph for value in node.outputs]
    for value in (*graph.graph.inputs, *made):
        if value.shape is not None:
            value.shape = ir.Shape([batch if dim == BATCH else dim for dim in value.shape])


def _manifest(
    spec: ModelSpec,
    export: ExportOptions,
    weights: WeightsOrigin,
    contract: InputContract,
    outputs: list[OutputContract],
    report: GraphReport,
) -> Manifest:
    return Manifest(
        slug=spec.slug,
        spec=spec,
        export=export,
        weights=weights,
        input=contract,
        outputs=outputs,
        graph=report,
        models={"ort": MODEL, "openvino": MODEL},
        files={},
        tools={name: importlib.metadata.version(name) for name in ("mbexport", *TOOLS)},
    )


def _serialised(graph: ir.Model, manifest: Manifest) -> bytes:
    """model.onnx with spec, contract and versions in its metadata; no dates, so that bytes can be compared."""
    import msgspec
    import onnx_ir as ir

    graph.ir_version = IR_VERSION
    graph.producer_name, graph.producer_version = "mbexport", manifest.tools["mbexport"]
    graph.graph.name, graph.doc_string, graph.graph.doc_string = manifest.slug, None, None
    unnamed = msgspec.structs.replace(manifest.weights, file=None)  # the same weights in another file: the same bytes
    stated = {key: getattr(manifest, key) for key in ("spec", "export", "input", "outputs", "tools")}
    for key, value in {**stated, "weights": unnamed}.items():
        graph.metadata_props[f"mbexport.{key}"] = msgspec.json.encode(value, order="deterministic").decode()
    data: bytes = ir.to_proto(graph).SerializeToString(deterministic=True)
    return data
