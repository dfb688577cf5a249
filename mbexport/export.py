"""The flow, readable from top to bottom: network -> ONNX -> passes -> artifact."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from mbexport.artifact import MODEL, OPENVINO_MODEL, Artifact, refuse_foreign, write_artifact
from mbexport.errors import ConversionError, MissingPackageError
from mbexport.garbage import own_garbage_collected
from mbexport.spec import MAX_NATIVE_OPSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx
    import onnx_ir as ir

    from mbexport.contract import InputRule
    from mbexport.graph import PassStep
    from mbexport.labels import Label
    from mbexport.manifest import GraphReport, InputContract, OutputContract
    from mbexport.reference import Reference
    from mbexport.spec import ExportOptions
    from mbexport.subject import About, Subject

_GUARD_PICTURES = 2
"""Reference pictures that guard each pass: two, so that a mixed-up batch shows."""


@dataclass(frozen=True)
class BuildResult:
    """An artifact just written, and where the time went."""

    artifact: Artifact
    timings_s: dict[str, float]
    notes: tuple[str, ...] = ()
    """What the user should know of the network."""


@dataclass(frozen=True)
class _Converted:
    """A network as the converter writes it, and what is said of it, in the form of the exported file."""

    about: About
    rule: InputRule
    reference: Reference
    input: InputContract
    outputs: list[OutputContract]
    proto: onnx.ModelProto

    def prepare(self, model: ir.Model) -> None:
        """Put inside what the file is to do with its pictures."""
        from mbexport.contract import InputRule
        from mbexport.graph.preprocess import preprocess_inside

        if self.input.type == "uint8" or self.rule != InputRule(self.input.mean, self.input.scale):
            preprocess_inside(model, input_type=self.input.type, mean=self.rule.mean, scale=self.rule.scale)


@dataclass(frozen=True)
class Order:
    """How to export, whatever the network; the words are those of :func:`mbexport.pipeline.build`."""

    export: ExportOptions
    out: Path
    strict: bool
    labels: Path | None
    golden: Path | None
    progress: Callable[[str], None] | None
    observe: Callable[[PassStep], None] | None


@own_garbage_collected()
def export(
    order: Order, slug: str, check_early: Callable[[], None], make_subject: Callable[[], Subject]
) -> BuildResult:
    """``check_early`` refuses what can be refused before TensorFlow is imported, ``make_subject`` makes the network."""
    clock = _Clock(order.progress)
    labels = _refuse_early(order, slug)
    check_early()
    with clock.step("import TensorFlow"):
        _import_tools()
    converted = _converted(order, make_subject, labels, clock)
    with clock.step("simplify"):
        graphs, report = _simplify(converted, order)
    if order.strict:
        _refuse_rollbacks(report)
    from mbexport.finish import finish, manifest_of, serialised

    about, contract, outputs, reference = converted.about, converted.input, converted.outputs, converted.reference
    with clock.step("check against Keras"):
        seen = {name: finish(graph, contract, outputs, reference, order.export.batch) for name, graph in graphs.items()}
    manifest = manifest_of(
        about,
        order.export,
        contract=contract,
        outputs=outputs,
        report=report,
        coverage=seen[MODEL].coverage,
        files=graphs,
        golden=reference.golden,
    )
    with clock.step("write"):
        models = {name: serialised(graph, manifest, about.labels) for name, graph in graphs.items()}
        traces = {name: held.trace for name, held in seen.items()}
        artifact = write_artifact(order.out, manifest, models, reference, labels=about.labels, traces=traces)
    return BuildResult(artifact, clock.timings_s, about.notes)


def _refuse_early(order: Order, slug: str) -> list[Label] | None:
    """What can be refused of any order before TensorFlow is imported; the labels that it gives."""
    refuse_foreign(order.out / slug)
    serde.refuse_unwritable(order.out)
    if order.export.opset > MAX_NATIVE_OPSET:
        from mbexport.graph.opset import check_opset

        check_opset(order.export.opset)
    if order.golden is not None:
        from mbexport.golden import pictures_of

        pictures_of(order.golden)
    if order.labels is None:
        return None
    from mbexport.labels_file import labels_from_file

    return labels_from_file(order.labels)


def _converted(
    order: Order, make_subject: Callable[[], Subject], labels: list[Label] | None, clock: _Clock
) -> _Converted:
    """All that needs TensorFlow. The Keras models are gone when it returns."""
    from mbexport.contract import in_form, input_contract, output_contracts
    from mbexport.golden import golden_of, pictures_of
    from mbexport.read_off import with_what_the_graph_tells
    from mbexport.subject import reference_of

    export = order.export
    with clock.step("build the network"):
        subject = make_subject()
    with clock.step("convert"):
        proto = subject.network.to_onnx(min(export.opset, MAX_NATIVE_OPSET))
        about, rule, kinds = with_what_the_graph_tells(subject.about, proto, labels)
    with clock.step("run Keras for reference"):
        reference = reference_of(subject, rule, kinds)
    contract = input_contract(rule, about.sizes[0], subject.network.picture_shape[2], export, dynamic=about.is_dynamic)
    reference = in_form(reference, contract, rule)
    if order.golden is not None:
        kept = golden_of(pictures_of(order.golden), subject.network, contract, rule)
        reference = replace(reference, golden=kept)
    return _Converted(
        about=about,
        rule=rule,
        reference=reference,
        input=contract,
        outputs=output_contracts(reference, kinds, export),
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


def _simplify(converted: _Converted, order: Order) -> tuple[dict[str, ir.Model], GraphReport]:
    """File name -> graph."""
    from mbexport.graph import openvino_variant, simplify
    from mbexport.graph.fuse_hard_swish import FIRST_OPSET
    from mbexport.outputs import guard_limit_db

    reference, export = converted.reference, order.export
    feeds = {name: array[:_GUARD_PICTURES] for name, array in reference.inputs.items()}
    limit_db = min(guard_limit_db(output, reference, _GUARD_PICTURES) for output in converted.outputs)
    graph, report = simplify(
        converted.proto,
        feeds,
        limit_db=limit_db,
        layout=export.layout,
        opset=export.opset,
        prepare=converted.prepare,
        progress=order.progress if order.observe is None else None,  # who observes the passes need not be told twice
        observe=order.observe,
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
