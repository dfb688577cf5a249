"""Pad followed by Conv -> Conv with larger pads."""

from __future__ import annotations

import onnx_ir as ir

from mbexport.graph import tools


class FoldPadding(ir.passes.InPlacePass):
    """Exact where the Pad adds zeros, in spatial dimensions only, and the Conv states its own pads."""

    def requires(self, model: ir.Model) -> None:
        tools.require_known(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            while (found := _match(node)) is not None:
                _fold(node, *found)
                modified = True
        return tools.finish(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        left = [node.name for node in model.graph if _match(node) is not None]
        if left:
            raise ir.passes.PostconditionError(f"the Conv nodes {left} could still take the Pad before them")


def _match(conv: ir.Node) -> tuple[ir.Node, list[int]] | None:
    """(the Pad, [begin..., end...] of the spatial dimensions) where ``conv`` is a Conv that can take it over."""
    if conv.op_type != "Conv" or conv.domain != "":
        return None
    pad = tools.producer(conv.inputs[0], "Pad")
    if pad is None or conv.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    extra = _spatial_zero_pads(pad)
    return None if extra is None else (pad, extra)


def _fold(conv: ir.Node, pad: ir.Node, extra: list[int]) -> None:
    own = conv.attributes.get_ints("pads", [0] * len(extra))
    if conv.attributes.get_string("auto_pad", "NOTSET") == "VALID":
        own = [0] * len(extra)
    conv.attributes.pop("auto_pad", None)
    conv.attributes.add(ir.AttrInt64s("pads", [a + b for a, b in zip(own, extra, strict=True)]))
    conv.replace_input_with(0, pad.inputs[0])


def _spatial_zero_pads(pad: ir.Node) -> list[int] | None:
    """[begin..., end...] of the spatial dimensions, None where the Pad does anything else."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return None
    if len(pad.inputs) > 2 and pad.inputs[2] is not None and tools.scalar(pad.inputs[2]) != 0.0:
        return None
    pads, axes = tools.constant(pad.inputs[1]), None
    if pads is None:
        return None
    rank = pads.size // 2
    full = [int(p) for p in pads]
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        axes = tools.constant(pad.inputs[3])
        shape = pad.inputs[0].shape if pad.inputs[0] is not None else None
        if axes is None or shape is None:
            return None
        rank = len(shape)
        full = [0] * (2 * rank)
        for index, axis in enumerate(int(a) % rank for a in axes):
            full[axis], full[axis + rank] = int(pads[index]), int(pads[index + axes.size])
    if rank < 3 or min(full) < 0 or any(full[i] or full[i + rank] for i in (0, 1)):
        return None
    return full[2:rank] + full[rank + 2 :]
