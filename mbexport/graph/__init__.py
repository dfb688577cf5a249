"""The graph passes: a sequence that makes a converted Keras MobileNet canonical, each pass guarded.

A pass is an ``onnx_ir`` in-place pass in a file of its own. To add one, write it and name it in :data:`PASSES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from mbexport.errors import ConversionError
from mbexport.graph import tools
from mbexport.graph.classifier_gemm import ClassifierGemm
from mbexport.graph.fold_affine import FoldAffine
from mbexport.graph.fold_constants import FoldConstants
from mbexport.graph.fold_hard_sigmoid import FoldHardSigmoid
from mbexport.graph.fold_padding import FoldPadding
from mbexport.graph.fold_scale import FoldScale
from mbexport.graph.fuse_hard_sigmoid import FuseHardSigmoid
from mbexport.graph.fuse_hard_swish import FuseHardSwish
from mbexport.graph.global_pool import GlobalPool
from mbexport.graph.guard import PassStep, census, checked, guarded
from mbexport.graph.layout import channels_first
from mbexport.graph.name_nodes import NameNodes
from mbexport.graph.opset import RaiseOpset
from mbexport.graph.sink_transposes import SinkTransposes
from mbexport.graph.spell_out_hard_swish import SpellOutHardSwish
from mbexport.graph.static_reshape import StaticReshape
from mbexport.manifest import GraphReport, PassReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import onnx
    from numpy.typing import NDArray

    from mbexport.spec import Layout

__all__ = ["PASSES", "PassStep", "openvino_variant", "simplify"]

PASSES: tuple[type[ir.passes.InPlacePass], ...] = (
    FoldConstants,
    StaticReshape,
    SinkTransposes,
    FoldPadding,
    FuseHardSigmoid,  # before FoldAffine, which would take the 3 of squeeze-excite's hard sigmoid into a bias
    FuseHardSwish,
    FoldAffine,
    FoldHardSigmoid,
    FoldScale,
    GlobalPool,
    ClassifierGemm,
    NameNodes,
)


def simplify(  # noqa: PLR0913 - one call a build
    proto: onnx.ModelProto,
    feeds: Mapping[str, NDArray[Any]],
    *,
    limit_db: float,
    layout: Layout = "nhwc",
    opset: int | None = None,
    passes: Sequence[ir.passes.InPlacePass] | None = None,
    prepare: Callable[[ir.Model], None] | None = None,
    progress: Callable[[str], None] | None = None,
    observe: Callable[[PassStep], None] | None = None,
) -> tuple[ir.Model, GraphReport]:
    """Run the passes over a channels-last model.

    Args:
        proto: the converted model.
        feeds: probe inputs by name, float32, in ``layout``.
        limit_db: the least SQNR of a pass's outputs against those before it.
        layout: the layout of 4-D inputs and outputs in the result.
        opset: the opset of the result, not below the model's; None keeps the model's.
        passes: instead of :data:`PASSES`.
        prepare: changes the channels-last model before anything else; ``feeds`` are for what it makes.
        progress: told each pass's name before it runs.
        observe: told what each pass did, once it has run.

    Returns:
        The new graph and the report on each pass.

    Raises:
        ConversionError: the graph cannot be brought to ``opset``.
    """
    model = ir.from_proto(proto)
    converted = census(model)
    if prepare is not None:
        prepare(model)
    if layout == "nchw":
        channels_first(model)
    sequence = [kind() for kind in PASSES] if passes is None else list(passes)
    if opset is not None and opset != tools.opset(model):
        sequence.insert(len(sequence) - 1, RaiseOpset(opset))  # before NameNodes, which names what a converter adds
    model, steps = _run(sequence, model, feeds, limit_db, progress, observe)
    if opset is not None and opset != tools.opset(model):
        reason = next(step.report.skipped for step in steps if step.report.name == RaiseOpset.__name__)
        raise ConversionError(f"the graph cannot be brought to opset {opset}: {reason}")
    ops = census(model)
    return model, GraphReport(
        nodes=sum(ops.values()),
        ops=ops,
        nodes_before=sum(converted.values()),
        ops_before=converted,
        passes=[step.report for step in steps],
    )


def openvino_variant(
    model: ir.Model, feeds: Mapping[str, NDArray[Any]], *, limit_db: float
) -> tuple[ir.Model | None, PassReport]:
    """The finished graph in the form that OpenVINO runs more than 5% faster, None where there is no such form.

    Args:
        model: what :func:`simplify` made, left alone.
        feeds: as there.
        limit_db: as there.
    """
    variant, steps = _run([SpellOutHardSwish(), NameNodes()], model.clone(), feeds, limit_db, None, None)
    report = steps[0].report
    return (variant if report.modified else None), report


def _run(
    sequence: Sequence[ir.passes.InPlacePass],
    model: ir.Model,
    feeds: Mapping[str, NDArray[Any]],
    limit_db: float,
    progress: Callable[[str], None] | None,
    observe: Callable[[PassStep], None] | None,
) -> tuple[ir.Model, list[PassStep]]:
    """Each pass guarded by the outputs of the graph before it. ``model`` is used up."""
    so_far, steps = checked(model, feeds), []
    for number, graph_pass in enumerate(sequence, start=1):
        if progress is not None:
            progress(type(graph_pass).__name__)
        before = census(so_far.model)
        done = guarded(graph_pass, so_far, feeds, limit_db)
        so_far = done.checked
        steps.append(PassStep(number, len(sequence), done.report, before, done.ops_after, done.error))
        if observe is not None:
            observe(steps[-1])
    return so_far.model, steps
