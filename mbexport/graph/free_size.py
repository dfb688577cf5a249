"""``--resolution dynamic``: a finished graph of one size for pictures of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from mbexport.graph import tools
from mbexport.spec import SPATIAL_AXES

if TYPE_CHECKING:
    from mbexport.spec import Layout

_NAMES = ("height", "width")
_RANK = 4


def free_size(model: ir.Model, layout: Layout) -> None:
    """Leave height and width of every 4-D input open, in place, and with them whatever depends on them.

    Whether the graph is right at other sizes is for the caller to find out by running it: a constant that depends on
    the size stays as it is.
    """
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) == _RANK:
            names = dict(zip(SPATIAL_AXES[layout], _NAMES, strict=True))
            value.shape = ir.Shape([names.get(axis, side) for axis, side in enumerate(value.shape)])
    results = [value for node in model.graph for value in node.outputs]
    for value in results:
        value.shape = None
    tools.infer_shapes(model)
    for value in results:
        if value.shape is not None:
            value.shape = ir.Shape([_known(side) for side in value.shape])


def _known(side: int | ir.SymbolicDim) -> int | str | None:
    """Without the names that the inference makes up, anew for every operator (``unk__12``)."""
    if isinstance(side, int):
        return side
    return None if side.value is None or side.value.startswith("unk__") else side.value
