"""Pictures that reach the network as other numbers than it was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fault_bench import places
from fault_bench.fault import fault

if TYPE_CHECKING:
    import onnx

    from fault_bench.draft import Draft

    Rng = np.random.Generator

HALF_RANGE = np.float32(127.5)
"""Keras's Rescaling(1/127.5, -1)."""


@fault("input scale off by 1%", places.input_reader)
def input_scale(draft: Draft, reader: onnx.NodeProto, _: Rng) -> None:
    """Pixels divided by another full scale than they were trained with."""
    draft.insert_before(reader, "Mul", [np.float32(1.01)])


@fault("missing Rescaling", places.input_reader)
def missing_rescaling(draft: Draft, reader: onnx.NodeProto, _: Rng) -> None:
    """The first convolution sees 0..255: V3's Rescaling was taken for preprocessing; V2 was fed without any.

    V3's Rescaling stands in the file as an offset, its scale in the first convolution's kernel.
    """
    if reader.op_type == "Add":
        reader.op_type = "Identity"
        draft.drop_last_input(reader)
        kernel = places.first_convolution(draft)[0].input[1]
        draft.set_array(kernel, draft.array(kernel) * HALF_RANGE)
    else:
        _insert_affine(draft, reader, HALF_RANGE, HALF_RANGE)


@fault("doubled Rescaling", places.input_reader)
def doubled_rescaling(draft: Draft, reader: onnx.NodeProto, _: Rng) -> None:
    """The exporter put preprocessing in front of a network that has it inside, or is fed with it done."""
    _insert_affine(draft, reader, 1 / HALF_RANGE, np.float32(-1))


@fault("BGR", places.first_convolution)
def bgr(draft: Draft, conv: onnx.NodeProto, _: Rng) -> None:
    """The first kernel comes from a network trained on OpenCV's colour order."""
    draft.set_array(conv.input[1], draft.array(conv.input[1])[:, ::-1])


def _insert_affine(draft: Draft, reader: onnx.NodeProto, scale: np.float32, offset: np.float32) -> None:
    draft.insert_before(reader, "Mul", [scale])
    draft.insert_before(reader, "Add", [offset])
