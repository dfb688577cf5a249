"""Right answers at the wrong place: another class, another picture, another batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fault_bench import places
from fault_bench.fault import fault

if TYPE_CHECKING:
    import onnx

    from fault_bench.draft import Draft

    Rng = np.random.Generator


@fault("top-1 off by one class", places.logits)
def shifted_classes(draft: Draft, node: onnx.NodeProto, _: Rng) -> None:
    """A list of labels with a background class in front."""
    classes = _matrix(draft).shape[1]
    draft.insert_after(node, "Gather", [np.roll(np.arange(classes), 1)], axis=1)


@fault("batch items mixed up", places.everywhere)
def mixed_up_batch(draft: Draft, node: onnx.NodeProto, _: Rng) -> None:
    """A layer's results in reverse order of the pictures. Nothing changes for a batch of one."""
    last, before_first, axis, step = ([value] for value in (-1, np.iinfo(np.int32).min, 0, -1))
    draft.insert_after(node, "Slice", [last, before_first, axis, step])


@fault("a stale constant for a dynamic batch", places.flattened)
def stale_batch(draft: Draft, flat: onnx.NodeProto, _: Rng) -> None:
    """The example's batch of one went into the file as a constant. Nothing changes for a batch of one."""
    shape = np.array([1, _matrix(draft).shape[0]])
    if flat.op_type == "Reshape":
        draft.set_array(flat.input[1], shape)
    else:
        draft.insert_after(flat, "Reshape", [shape])


def _matrix(draft: Draft) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    (product,) = places.classifier(draft)
    return draft.array(product.input[1])
