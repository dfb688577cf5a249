"""The graph passes: a first sequence that makes a converted Keras MobileNet canonical, each pass guarded.

A pass is an ``onnx_ir`` in-place pass in a file of its own. To add one, write it and name it in :data:`PASSES`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir

from mbexport.artifact import GraphReport
from mbexport.graph.fold_affine import FoldAffine
from mbexport.graph.fold_constants import FoldConstants
from mbexport.graph.fold_padding import FoldPadding
from mbexport.graph.fuse_hard_sigmoid import FuseHardSigmoid
from mbexport.graph.fuse_hard_swish import FuseHardSwish
from mbexport.graph.guard import guarded, run_model
from mbexport.graph.layout import channels_first
from mbexport.graph.name_nodes import NameNodes
from mbexport.graph.sink_transposes import SinkTransposes
from mbexport.graph.static_reshape import StaticReshape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import onnx
    from numpy.typing import NDArray

    from mbexport.spec import Layout

__all__ = ["PASSES", "simplify"]

PASSES: tuple[type[ir.passes.InPlacePass], ...] = (
    FoldConstants,
    StaticReshape,
    SinkTransposes,
    FoldPadding,
    FuseHardSigmoid,  # before FoldAffine, which would take the 3 of squeeze-excite's hard sigmoid into a bias
    FuseHardSwish,
    FoldAffine,
    NameNodes,
)


def simplify(
    proto: onnx.ModelProto,
    feeds: Mapping[str, NDArray[Any]],
    *,
    limit_db: float,
    layout: Layout = "nhwc",
    passes: Sequence[ir.passes.InPlacePass] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[ir.Model, GraphReport]:
    """Run the passes over a channels-last model.

    Args:
        proto: the converted model.
        feeds: probe inputs by name, float32, in ``layout``.
        limit_db: the least SQNR of a pass's outputs against those before it.
        layout: the layout of 4-D inputs and outputs in the result.
        passes: instead of :data:`PASSES`.
        progress: told each pass's name before it runs.

    Returns:
        The new graph and the report on each pass.
    """
    model = ir.from_proto(proto)
    nodes_before, ops_before = _census(model)
    if layout == "nchw":
        channels_first(model)
    outputs: Mapping[str, NDArray[Any]] = run_model(model, feeds)
    reports = []
    for graph_pass in passes if passes is not None else [kind() for kind in PASSES]:
        if progress is not None:
            progress(type(graph_pass).__name__)
        model, outputs, report = guarded(graph_pass, model, feeds, outputs, limit_db)
        reports.append(report)
    nodes, ops = _census(model)
    return model, GraphReport(nodes=nodes, ops=ops, nodes_before=nodes_before, ops_before=ops_before, passes=reports)


def _census(model: ir.Model) -> tuple[int, dict[str, int]]:
    ops = Counter(node.op_type for node in model.graph)
    return ops.total(), dict(sorted(ops.items(), key=lambda item: (-item[1], item[0])))
